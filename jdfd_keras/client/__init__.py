"""Client of TensorFlow Serving's REST and gRPC; imports no TensorFlow."""

from jdfd_keras.client.client import Client, connect
from jdfd_keras.client.errors import (
    AccessDenied,
    ClientError,
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
    "InvalidResponse",
    "RequestFailed",
    "RequestRefused",
    "RequestTimeout",
    "RequestTooLarge",
    "ServerUnavailable",
    "SignatureMissing",
    "connect",
]
