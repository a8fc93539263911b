"""Errors of a request, with their gRPC code and HTTP status. Imports no TensorFlow."""

from grpc import StatusCode

HTTP_STATUS = {  # as TensorFlow Serving; all others: 500
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.NOT_FOUND: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


class CallError(ValueError):
    """A request that cannot be answered.

    Attributes:
        code: The gRPC code.
        http_status: The corresponding HTTP status.

    Example:
        >>> CallError("no such model", StatusCode.NOT_FOUND).http_status
        404
    """

    def __init__(
        self,
        message: str,
        code: StatusCode = StatusCode.INVALID_ARGUMENT,
        *,
        http_status: int | None = None,
    ):
        """Create an error with a text for the client; `http_status` replaces that of the code."""
        super().__init__(message)
        self.code = code
        self.http_status = http_status or HTTP_STATUS.get(code, 500)
