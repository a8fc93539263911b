"""Errors of a request, with their gRPC code and HTTP status.

A request that cannot be answered raises `CallError` with one of the canonical codes that gRPC and
TensorFlow share. Only this module maps codes to HTTP statuses. Imports no TensorFlow.
"""

# In numerical order, as gRPC, TensorFlow and `google.rpc.Code` define them.
CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
HTTP_STATUS = {  # all others: 500
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class CallError(ValueError):
    """A request that cannot be answered.

    Attributes:
        code: Name of a canonical code; gRPC's status codes have the same names.
        http_status: The corresponding HTTP status.

    Example:
        >>> CallError("Servable not found", "NOT_FOUND").http_status
        404
    """

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT", *, http_status: int = 0):
        """Create an error.

        Args:
            message: Text for the client.
            code: One of `CODES`.
            http_status: A more specific HTTP status than the default of the code.
        """
        super().__init__(message)
        self.code = code
        self.http_status = http_status or HTTP_STATUS.get(code, 500)


def from_tensorflow(error) -> CallError:
    """Convert the `tf.errors.OpError` of a model that rejected its input to a `CallError`."""
    message = error.message.removeprefix("Graph execution error:").strip()
    return CallError(message, CODES[error.error_code])
