"""Errors of a client: one class for each cause, the same over REST and gRPC."""

# The names state the cause, as those of `http.client` do.
# ruff: noqa: N818


class ClientError(OSError):
    """A request to a served model failed.

    Attributes:
        url: The URL of the model, or the path of one on this machine.
        reason: The answer of the server, or the error of the connection.
        retry_after_s: Shortest time before the request may be repeated; None if it must not be.

    Example:
        >>> from jdfd_keras.client import connect
        >>> try:
        ...     connect("http://127.0.0.1:8501/v1/models/unknown")
        ... except ServerUnavailable:
        ...     print("start the server first")
        ... except ClientError as error:
        ...     print(error.reason)
        status 404: ...
    """

    _message = "Expected {url} to answer; got {reason}"

    def __init__(self, url: object, reason: object, retry_after_s: float | None = None):
        self.url, self.reason, self.retry_after_s = str(url), str(reason), retry_after_s
        super().__init__(self._message.format(url=self.url, reason=self.reason.rstrip(" .")))

    def __reduce__(self):
        return type(self), (self.url, self.reason, self.retry_after_s)


class ServerUnavailable(ClientError):
    """No server could be reached at the URL."""

    _message = (
        "Expected a server at {url}; got '{reason}'. Is it running? `jdfd-keras serve` starts one."
    )


class RequestTimeout(ClientError):
    """The server did not answer in time; the request was not repeated."""

    _message = (
        "Expected {url} to answer in time; got {reason}. The request was not repeated, since that "
        "would add to the load: send fewer faces at once, or raise timeout_s."
    )


class AccessDenied(ClientError):
    """The server, or a proxy in front of it, requires credentials."""

    _message = (
        "Expected {url} to accept the request; got {reason}. Credentials are required: put the "
        "token into the environment variable JDFD_KERAS_TOKEN, or another kind of credentials into "
        'JDFD_AUTHORIZATION or headers={{"Authorization": ...}}.'
    )


class RequestRefused(ClientError):
    """The server rejected the content of the request, such as bytes that are not an image."""

    _message = "Expected {url} to accept the request; got {reason}. Check the faces."


class RequestTooLarge(ClientError):
    """The request exceeds the size limit of the server, or of a proxy in front of it."""

    _message = (
        "Expected {url} to accept a request of that size; got {reason}. Send smaller faces, or ask "
        "its operator to raise the limit."
    )


class RequestFailed(ClientError):
    """The server answered with another error, such as an unknown model or a full queue."""

    _message = (
        "Expected {url} to answer; got {reason}. Check the name and the version of the model, and "
        "the log of its server; if it is busy, try again later."
    )


class InvalidResponse(ClientError):
    """The answer is not one of TensorFlow Serving."""

    _message = (
        "Expected {url} to answer as TensorFlow Serving does; got {reason}. Check that the server "
        "is TensorFlow Serving or `jdfd-keras serve`."
    )


class InvalidMetadata(ClientError):
    """The model's own metadata is damaged or of another format version."""

    _message = (
        "Expected {url} to have readable metadata of {reason}. Export it again with this version "
        "of jdfd-keras, or use the version that exported it."
    )


class SignatureMissing(ClientError):
    """The model lacks a signature, or an output of one; `reason` names it and those it has."""

    _message = "Expected {url} to have {reason}. Export the model again with `jdfd-keras export`."
