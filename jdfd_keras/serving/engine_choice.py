"""The choice of the server of `serve`: TensorFlow Serving's program, its Docker image, or our own.

Takes the options; returns the first server that is available and has them. Starts nothing.
TensorFlow Serving checks no token: its program, which other machines can reach, must be named.
"""

import shutil
import subprocess

from jdfd_keras.options import ENGINES, EngineOptions, ServeOptions
from jdfd_keras.serving.jobs.access import is_loopback

AUTO, BINARY, DOCKER, EMBEDDED = ENGINES
DOCKER_TIMEOUT_S = 5
PROGRAM = "tensorflow_model_server"


def choose_engine(
    options: ServeOptions,
    engine: EngineOptions | None = None,
    *,
    has_files: bool = False,
    has_token: bool = False,
) -> tuple[str, str]:
    """Choose the server.

    Args:
        options: The requested server; `auto` selects Docker, if it runs and has the options, else
            the embedded server. TensorFlow Serving's program must be named: it listens on all
            addresses.
        engine: Backend and precision of the scores.
        has_files: Whether to serve files, too.
        has_token: Whether requests need a token.

    Returns:
        One of ENGINES except `auto`, and the reason.

    Raises:
        OSError: If the requested server is not available.
        ValueError: If it cannot score by the requested backend or precision, serve files or check a
            token, or is a container that other machines could reach.

    Example:
        >>> choose_engine(ServeOptions(engine="embedded"))
        ('embedded', 'as requested')
    """
    requested = options.engine
    if requested not in ENGINES:
        raise ValueError(
            f"Expected an engine among {', '.join(ENGINES)}; got {requested!r}. Try auto."
        )
    if requested == EMBEDDED:
        return EMBEDDED, "as requested"
    if has_files and requested != AUTO:
        raise ValueError(
            f"Expected --engine embedded with --files, since TensorFlow Serving has no API for "
            f"files; got {requested}. Try --engine embedded, or jdfd-keras app beside it."
        )
    if has_files:
        return EMBEDDED, "only this engine serves files"
    if has_token and requested != AUTO:
        raise ValueError(
            f"Expected --engine embedded with a token, since TensorFlow Serving checks none; got "
            f"{requested}. Put a proxy that checks it before TensorFlow Serving, and unset "
            "JDFD_KERAS_TOKEN here; or try --engine embedded."
        )
    if has_token:
        return EMBEDDED, "only this engine checks a token"
    if requested == DOCKER and not is_loopback(options.host):
        raise ValueError(
            "Expected --host 127.0.0.1 with --engine docker, since TensorFlow Serving checks no "
            f"token; got {options.host or chr(39) * 2}, which other machines can reach. Put a "
            "proxy that checks one before it, as in serving/compose.yaml, or try --engine embedded "
            "with --token @FILE."
        )
    if requested == AUTO and not is_loopback(options.host):
        return EMBEDDED, "only this engine checks a token, which other machines need"
    if requested == AUTO and 0 in (options.port, options.grpc_port):
        return EMBEDDED, "only this engine can find a free port"
    engine = engine or EngineOptions()
    is_own = engine.backend in (AUTO, "tensorflow") and engine.precision in (AUTO, "float32")
    if requested == AUTO and not is_own:
        return EMBEDDED, "only this engine scores by OpenVINO"
    if not is_own:
        raise ValueError(
            f"Expected --backend tensorflow and --precision float32 with --engine {requested}, "
            f"since TensorFlow Serving runs TensorFlow only; got {engine.backend} and "
            f"{engine.precision}. Try --engine embedded."
        )
    if requested == BINARY:
        if binary := shutil.which(PROGRAM):
            return BINARY, f"found {binary}"
        raise OSError(
            f"Expected {PROGRAM} on the PATH; got none. Install TensorFlow Serving, or "
            "try --engine docker or --engine embedded."
        )
    version, error = _query_docker()
    if version:
        return DOCKER, f"Docker {version} is running"
    if requested == DOCKER:
        raise OSError(
            f"Expected a running Docker engine; got '{error}'. Start it, check that "
            "`docker version` shows a server, or try --engine embedded."
        )
    return EMBEDDED, f"Docker is not available: {error}"


def _query_docker() -> tuple[str, str]:
    """Return the version of the Docker engine and "", or "" and the error."""
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if result.returncode == 0 and result.stdout.strip():
        return result.stdout.strip(), ""
    return "", (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
