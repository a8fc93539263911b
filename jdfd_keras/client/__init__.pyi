"""Client of TensorFlow Serving over REST and gRPC; imports no TensorFlow."""

from .client import Client, connect
from .errors import (
    AccessDenied,
    ClientError,
    InvalidMetadata,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTimeout,
    RequestTooLarge,
    ServerUnavailable,
    SignatureMissing,
)

__all__ = [
    "AccessDenied",
    "Client",
    "ClientError",
    "InvalidMetadata",
    "InvalidResponse",
    "RequestFailed",
    "RequestRefused",
    "RequestTimeout",
    "RequestTooLarge",
    "ServerUnavailable",
    "SignatureMissing",
    "connect",
]
