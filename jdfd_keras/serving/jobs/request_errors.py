"""Why a request of the file service is refused: codes that programs can read, and their status."""

# Code to HTTP status. The codes of jobs that failed are in `job_types`.
REQUEST_CODES = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden_host": 403,
    "foreign_origin": 403,
    "callback_not_allowed": 403,
    "outside_root": 403,
    "not_found": 404,
    "missing": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "not_ready": 409,
    "too_large": 413,
    "internal": 500,
    "no_chromium": 501,
    "queue_full": 503,
    "stopping": 503,
    "disk_full": 507,
}
RETRY_AFTER_S = {"queue_full": 30, "stopping": 5}


class RequestError(ValueError):
    """A refused request.

    Attributes:
        code: One of REQUEST_CODES.
        message: What was expected and what was given; no secret and no path of the server.
    """

    def __init__(self, code: str, message: str):
        """Create an error of a known code."""
        super().__init__(message)
        self.code, self.message = code, message
        self.status = REQUEST_CODES[code]

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Return the error document."""
        return {"error": {"code": self.code, "message": self.message}}
