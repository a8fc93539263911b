"""The choice of the server of `serve`: TensorFlow Serving's program, its Docker image, or our own.

Takes the options; returns the first server that is available and has them. Starts nothing.
"""

import shutil
import subprocess

from jdfd_keras.options import ENGINES, EngineOptions, ServeOptions

AUTO, BINARY, DOCKER, EMBEDDED = ENGINES
DOCKER_TIMEOUT_S = 5
PROGRAM = "tensorflow_model_server"


def choose_engine(
    options: ServeOptions, engine: EngineOptions | None = None, has_files: bool = False
) -> tuple[str, str]:
    """Choose the server.

    Args:
        options: The requested server; `auto` selects the first available one that has the options.
        engine: Backend and precision of the scores.
        has_files: Whether to serve files, too.

    Returns:
        One of ENGINES except `auto`, and the reason.

    Raises:
        OSError: If the requested server is not available.
        ValueError: If it cannot score by the requested backend or precision, or serve files.

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
    binary = shutil.which(PROGRAM)
    if binary and requested in (AUTO, BINARY):
        return BINARY, f"found {binary}"
    if requested == BINARY:
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
    return EMBEDDED, f"neither {PROGRAM} nor Docker is available: {error}"


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
