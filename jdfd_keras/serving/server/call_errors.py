"""What goes wrong with a call, and how each transport says so.

A call that cannot be answered raises `CallError` with one of the canonical codes that gRPC and
TensorFlow share. Only this module knows which HTTP status a code has. Imports no TensorFlow.
"""

# By their numbers, as gRPC, TensorFlow and `google.rpc.Code` give them.
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
HTTP_STATUS = {  # the rest are 500
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
    """A call that cannot be answered.

    Attributes:
        code: The name of a canonical code; gRPC's status codes have the same names.
        http_status: The status of HTTP that goes with it.
    """

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT", *, http_status: int = 0):
        """Say why.

        Args:
            message: The words for the client.
            code: One of `CODES`.
            http_status: Where HTTP has a status that says more than that of the code.
        """
        super().__init__(message)
        self.code = code
        self.http_status = http_status or HTTP_STATUS.get(code, 500)


def from_tensorflow(error) -> CallError:
    """Turn the `tf.errors.OpError` of a model that refused its input into a `CallError`."""
    message = error.message.removeprefix("Graph execution error:").strip()
    return CallError(message, CODES[error.error_code])
