"""Options of the server and of its file service: address, jobs, users, and how much it accepts.

Secrets are the text itself here; the command line reads them from files and from the environment.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from jdfd_keras.options.data_options import LimitOptions, setting

# Users of the service are others than its operator, so that videos have a limit by default.
SERVICE_LIMITS = LimitOptions(max_duration_s=3600.0)
MIN_SECRET_LENGTH = 16
MAX_KEEP_HOURS = 10**6  # a century


def secret_setting(variable: str, help: str, common: bool = False) -> Any:
    """Declare an option that is a secret: it is not part of the text of its group.

    Args:
        variable: Environment variable that is its default on the command line.
        help: One line of help.
        common: Whether `--help` shows it.

    Example:
        >>> secret_setting("JDFD_KERAS_TOKEN", "token of clients").metadata["variable"]
        'JDFD_KERAS_TOKEN'
    """
    metadata = {"help": help, "choices": (), "common": common, "variable": variable}
    return dataclasses.field(default="", repr=False, metadata=metadata)


@dataclass(frozen=True)
class FileServiceOptions:
    """File service; changes no verdict."""

    files: bool = setting(
        False,
        "serve whole videos and images, too: the page / and the API /v1/files, on the port of REST "
        "(embedded only)",
        common=True,
    )
    state: str = setting(
        "",
        "folder of jobs, uploads and results; one server at a time (default: jdfd-keras in "
        "$XDG_STATE_HOME or ~/.local/state)",
        common=True,
    )
    root: str = setting(
        "", "folder whose files a request may name by path instead of an upload; default: none"
    )
    token: str = secret_setting(
        "JDFD_KERAS_TOKEN",
        "secret that every request must have, of 16 characters or more; required with a --host "
        "that other machines can reach; embedded only; @FILE: in a file; default: "
        "$JDFD_KERAS_TOKEN",
        common=True,
    )
    callback_secret: str = secret_setting(
        "JDFD_KERAS_CALLBACK_SECRET",
        "key that signs callbacks (HMAC-SHA256); @FILE: in a file; default: "
        "$JDFD_KERAS_CALLBACK_SECRET",
    )
    callback_hosts: str = setting(
        "", "hosts that may be called back, separated by commas; default: none"
    )
    workers: int = setting(0, "processes that extract faces; 0: one per core", common=True)
    max_jobs: int = setting(1000, "largest number of queued files; others are answered 503")
    max_upload_mb: int = setting(2048, "largest file in MiB; others are answered 413", common=True)
    keep_hours: float = setting(
        168.0, "hours that a file and its result are kept after the end; 0: always", common=True
    )

    def __post_init__(self):
        """Raise a ValueError if a limit is out of range or a secret is too short."""
        for name, bound in {"workers": 0, "max_jobs": 1, "max_upload_mb": 1}.items():
            if getattr(self, name) < bound:
                raise ValueError(
                    f"Expected --{name.replace('_', '-')} of {bound} or more; got "
                    f"{getattr(self, name)}. Try the default."
                )
        if not 0 <= self.keep_hours <= MAX_KEEP_HOURS:
            raise ValueError(
                f"Expected --keep-hours from 0 (always) to {MAX_KEEP_HOURS}; got "
                f"{self.keep_hours}. Try the default."
            )
        for name in ("token", "callback_secret"):
            secret = getattr(self, name)
            is_plain = all("!" <= character <= "~" for character in secret)
            if secret and not (is_plain and len(secret) >= MIN_SECRET_LENGTH):
                # The secret itself is not repeated.
                raise ValueError(
                    f"Expected a --{name.replace('_', '-')} of {MIN_SECRET_LENGTH} or more "
                    f"printable ASCII characters without spaces; got {len(secret)} characters. Try "
                    "the output of `openssl rand -hex 16`."
                )
        if self.callback_hosts and not self.callback_secret:
            raise ValueError(
                f"Expected a --callback-secret with --callback-hosts {self.callback_hosts}; got "
                "none. Receivers need it to check that a callback is from this server."
            )


ENGINES = ("auto", "tensorflow-model-server", "docker", "embedded")


@dataclass(frozen=True)
class ServeOptions:
    """Address and limits."""

    engine: str = setting(
        "auto",
        "TensorFlow Serving's own binary (open to other machines), its Docker image, or the server "
        "in this process; auto: the image if Docker runs, else the server in this process",
        choices=ENGINES,
        common=True,
    )
    host: str = setting(
        "127.0.0.1",
        "address to listen on; the default is reachable from this machine only",
        common=True,
    )
    port: int = setting(8501, "port of REST; 0: a free one (embedded only)", common=True)
    grpc_port: int = setting(8500, "port of gRPC; 0: a free one (embedded only)", common=True)
    max_batch_size: int = setting(
        32, "largest number of faces of waiting requests that are scored together", common=True
    )
    batch_timeout_ms: float = setting(
        0.0, "longest wait of an incomplete batch for more requests in milliseconds; 0: none"
    )
    timeout_s: float = setting(
        60.0, "timeout of a request in seconds; after it the answer is 504", common=True
    )
    max_queue: int = setting(
        256, "largest number of waiting requests; others are answered 503 (embedded only)"
    )
    max_body_mb: int = setting(
        32, "largest request in MiB; others are answered 413 (embedded only)"
    )
    max_json_mb: int = setting(
        4,
        "most JSON outside of strings in a request, in MiB, so without images in base64; others "
        "are answered 413 (embedded only)",
    )

    def __post_init__(self):
        """Raise a ValueError if a limit is out of range."""
        minimum = {"max_batch_size": 1, "max_queue": 1, "max_body_mb": 1, "max_json_mb": 1}
        for name in ("port", "grpc_port", "max_batch_size", "batch_timeout_ms", *minimum):
            bound = minimum.get(name, 0)
            if not getattr(self, name) >= bound:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"Expected {flag} of {bound} or more; got {getattr(self, name)}. Try the "
                    "default."
                )
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(
                f"Expected --timeout-s above 0; got {self.timeout_s}. Try the default."
            )
