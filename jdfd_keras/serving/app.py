"""`app`: the file service with its page, alone or beside TensorFlow Serving's API.

Takes a model and options; runs until a signal. Imports TensorFlow only if the model needs it.
"""

import contextlib
import os
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdfd_keras.inference.engine import check_engine_options
from jdfd_keras.io.console import print_message
from jdfd_keras.io.workers import check_limits
from jdfd_keras.options import (
    SERVICE_LIMITS,
    CredentialOptions,
    EngineOptions,
    FileServiceOptions,
    LimitOptions,
    ServeOptions,
)
from jdfd_keras.serving.jobs.access import check_exposure
from jdfd_keras.serving.jobs.app_page import describe_retention
from jdfd_keras.serving.jobs.file_routes import FileRoutes
from jdfd_keras.serving.jobs.job_service import JobService
from jdfd_keras.serving.server.app_server import AppServer
from jdfd_keras.serving.server.loop_thread import run_until_signal


def serve_app(
    model: str | Path | None = None,
    options: ServeOptions | None = None,
    *,
    files: FileServiceOptions | None = None,
    limits: LimitOptions | None = None,
    engine: EngineOptions | None = None,
    models: Sequence[str | Path] = (),
    credentials: CredentialOptions | None = None,
    is_opened: bool = False,
) -> None:
    """Serve the page and /v1/files until SIGTERM or SIGINT; from the main thread.

    Writes the URL of the page to stdout once it accepts requests, and where files are kept to
    stderr. Jobs that are not done at the end are done by the next server with the same state.

    Args:
        model: Path, name or URL of a model, as for `load_predictor`; by default the detector that
            comes with the package.
        options: Address.
        files: Token, state and limits of the service.
        limits: Limits of one file; SERVICE_LIMITS if not given.
        engine: Backend and precision of the scores of local models.
        models: Instead of `model`: several models, URLs and plug-ins (`module:function`), each of
            which judges each file on its own.
        credentials: Whose Content Credentials are trusted; nobody's by default.
        is_opened: Whether to open the page in a browser, if this machine has a display.

    Raises:
        ValueError: If an option is invalid, or other machines could use it without a token.
        OSError: If a model cannot be loaded, another server has the same state, or the address
            cannot be bound.

    Example:
        >>> serve_app(options=ServeOptions(host="0.0.0.0"))
        Traceback (most recent call last):
        ValueError: Expected a --token with --host 0.0.0.0, which other machines can reach; got ...
    """
    options, files = options or ServeOptions(), files or FileServiceOptions()
    check_exposure(options.host, files.token)
    if model is not None and models:
        raise ValueError(
            f"Expected either a model or several models; got {model} and {len(models)} others. Put "
            "all of them into models."
        )
    first, opinions = (models[0], models[1:]) if models else (model, ())
    service = open_file_service(
        first, files, limits, engine, opinions=opinions, credentials=credentials
    )
    with service as routes:

        def announce(server: AppServer) -> None:
            print(f"{server.url}/", flush=True)
            print_message(describe_service(server.url, routes, files))
            print_message("Stop with Ctrl-C.")
            if is_opened and has_display():
                webbrowser.open(f"{server.url}/")

        run_until_signal(AppServer(routes, options.host, options.port), announce)


@contextlib.contextmanager
def open_file_service(
    model: str | Path | None,
    options: FileServiceOptions,
    limits: LimitOptions | None = None,
    engine: EngineOptions | None = None,
    *,
    opinions: Sequence[str | Path] = (),
    credentials: CredentialOptions | None = None,
) -> Iterator[FileRoutes]:
    """Run the jobs of a file service inside the block, and return its routes.

    Args:
        model: A model, as for `load_predictor`; None for the one of the package.
        options: Token, state and limits of the service.
        limits: Limits of one file.
        engine: Backend and precision of the scores of local models.
        opinions: Further models and plug-ins, each of which judges each file on its own.
        credentials: Whose Content Credentials are trusted.

    Raises:
        ValueError: If an option is invalid.
        OSError: If a model cannot be loaded, or another server has the same state.

    Example:
        >>> with open_file_service("saved_models/detector", FileServiceOptions(state="st")) as r:
        ...     r.find("/v1/files") is not None, r.find("/v1/models/detector")
        (True, None)
    """
    limits, engine = limits or SERVICE_LIMITS, engine or EngineOptions()
    check_limits(limits)
    check_engine_options(engine)
    if options.root and not Path(options.root).is_dir():
        raise FileNotFoundError(
            f"Expected --root to be a folder; got {options.root}. Check the path."
        )
    print_message("Loading the models ..." if opinions else "Loading the model ...")
    service = JobService(
        *(model, options),
        limits=limits,
        engine=engine,
        opinions=opinions,
        credentials=credentials,
    )
    with service:
        routes = FileRoutes(service, options.token)
        try:
            yield routes
        finally:
            routes.close()


def describe_service(url: str, routes: FileRoutes, options: FileServiceOptions) -> str:
    """Return where the page is and where files are kept, as two sentences.

    Example:
        >>> with open_file_service("saved_models/detector", FileServiceOptions(state="st")) as r:
        ...     describe_service("http://127.0.0.1:8501", r, FileServiceOptions())
        'Page: http://127.0.0.1:8501/. Files and results are kept in ...st for 7 days ...'
    """
    period = describe_retention(options.keep_hours)
    kept = f"{period} after the end" if period else "until you delete them"
    return f"Page: {url}/. Files and results are kept in {routes.state} {kept} (--keep-hours)."


def has_display() -> bool:
    """Return whether a browser with windows can be opened on this machine.

    Example:
        >>> has_display() in (True, False)
        True
    """
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
