"""`serve`: start TensorFlow Serving or the embedded server, with the same options.

Takes an exported model or TensorFlow Serving's file of models; runs TensorFlow Serving where it is
available, otherwise the embedded server. Imports TensorFlow only for the embedded server, and only
when it starts.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from jdfd_keras.client.signatures import SERVING_DEFAULT
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import ENGINES, ServeOptions
from jdfd_keras.serving import tf_serving
from jdfd_keras.serving.model_config import ModelConfig, configure_directory, read_models_config

AUTO, BINARY, DOCKER, EMBEDDED = ENGINES
DOCKER_TIMEOUT_S = 5


def serve(
    model_directory: str | Path | None = None,
    options: ServeOptions | None = None,
    *,
    models_config: str | Path | None = None,
) -> None:
    """Serve exported models until SIGTERM or SIGINT; from the main thread.

    Writes the chosen engine and the options it does not support to stderr, and an example request
    to stdout once all models accept requests.

    Args:
        model_directory: `saved_models/<name>`. Its newest version is served under that name and
            replaced when a newer one appears.
        options: Engine, address and limits.
        models_config: Instead of `model_directory`: models, version policies and labels in
            TensorFlow Serving's text format.

    Raises:
        ValueError: If not exactly one of both is given, or an option is invalid.
        OSError: If no model can be loaded, the requested engine is not available or exits
            unexpectedly, or an address cannot be bound.

    Example:
        >>> serve("saved_models/detector", ServeOptions(engine="embedded"))
    """
    options = options or ServeOptions()
    if (model_directory is None) == (models_config is None):
        raise ValueError(
            f"Expected either a model or a models_config; got {model_directory} and "
            f"{models_config}. A models_config can have a single model, too."
        )
    models_config = Path(models_config) if models_config else None
    configs = (
        read_models_config(models_config)
        if models_config
        else (configure_directory(model_directory),)
    )
    engine, reason = choose_engine(options)
    print(f"Engine: {engine} ({reason}).", file=sys.stderr)
    for limitation in _list_limitations(engine, options):
        print(f"Warning: {limitation}", file=sys.stderr, flush=True)

    if engine == EMBEDDED:
        import_tensorflow()
        from jdfd_keras.serving.server.model_server import run_server

        run_server(
            configs, options, lambda server: _announce(server.url, server.grpc_target, configs)
        )
    else:
        tf_serving.run_model_server(
            configs,
            options,
            lambda url: _announce(
                url,
                f"{urlsplit(url).hostname}:{options.grpc_port}",
                configs,
                exposed=_is_exposed(engine, options),
            ),
            docker=engine == DOCKER,
            models_config=models_config,
        )


def choose_engine(options: ServeOptions) -> tuple[str, str]:
    """Choose the engine.

    Args:
        options: The requested engine; `auto` selects the first available one.

    Returns:
        One of ENGINES except `auto`, and the reason.

    Raises:
        ValueError: If the engine is unknown.
        OSError: If the requested engine is not available.

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
    if requested == AUTO and 0 in (options.port, options.grpc_port):
        return EMBEDDED, "only this engine can find a free port"
    binary = shutil.which(tf_serving.BINARY)
    if binary and requested in (AUTO, BINARY):
        return BINARY, f"found {binary}"
    if requested == BINARY:
        raise OSError(
            f"Expected {tf_serving.BINARY} on the PATH; got none. Install TensorFlow Serving, or "
            "try --engine docker or --engine embedded."
        )
    version, error = query_docker_version()
    if version:
        return DOCKER, f"Docker {version} is running"
    if requested == DOCKER:
        raise OSError(
            f"Expected a running Docker engine; got '{error}'. Start it, check that "
            "`docker version` shows a server, or try --engine embedded."
        )
    return EMBEDDED, f"neither {tf_serving.BINARY} nor Docker is available: {error}"


def query_docker_version() -> tuple[str, str]:
    """Query the version of the Docker engine.

    Returns:
        The version and "", or "" and the error.
    """
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if result.returncode == 0 and result.stdout.strip():
        return result.stdout.strip(), ""
    return "", (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]


def _list_limitations(engine: str, options: ServeOptions) -> list[str]:
    """List the options that an engine does not support."""
    if engine == EMBEDDED:
        return []
    limitations = [
        "TensorFlow Serving has no limit on the size of a request: --max-body-mb must be enforced "
        "by a proxy."
    ]
    if options.max_batch_size > 1:
        limitations.append(
            f"TensorFlow Serving rejects a request of more than {options.max_batch_size} faces "
            "(--max-batch-size)."
        )
    if _is_exposed(engine, options):
        limitations.append(
            "TensorFlow Serving listens on all addresses of this machine, not only on "
            f"{options.host} (--host): protect it by a firewall."
        )
    return limitations


def _is_exposed(engine: str, options: ServeOptions) -> bool:
    return engine == BINARY and options.host not in ("", "0.0.0.0", "::")


def _announce(
    url: str, grpc_target: str, configs: Sequence[ModelConfig], *, exposed: bool = False
) -> None:
    print(write_example_call(url, configs[0].name), flush=True)
    if exposed:  # repeated, since the log of TensorFlow Serving hides the warning at the start
        print(
            "WARNING: OPEN TO THE NETWORK, in spite of --host: anyone who can reach this machine "
            "can send requests. Protect it by a firewall, or use --engine embedded.",
            file=sys.stderr,
        )
    names = ", ".join(config.name for config in configs)
    print(
        f"Ready: {names} at {url} (REST) and grpc://{grpc_target} (gRPC). Stop with Ctrl-C.",
        file=sys.stderr,
        flush=True,
    )


def write_example_call(url: str, name: str) -> str:
    """Return a command line that sends an example request to a served model.

    Args:
        url: Base URL of REST.
        name: A loaded model.

    Returns:
        A call of curl that scores `face.jpg`, or requests the metadata if the model does not
        accept image files.
    """
    model_url = f"{url}/v1/models/{name}"
    metadata = urllib3.request("GET", f"{model_url}/metadata", retries=False, timeout=5.0).json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    if "image_bytes" not in signatures.get(SERVING_DEFAULT, {}).get("inputs", {}):
        return f"curl -s {model_url}/metadata"
    # By a pipe, since a face is too long for a command line; curl removes the line breaks.
    return (
        """(printf '{"instances": [{"b64": "'; base64 < face.jpg; printf '"}]}') | """
        f"curl -s {model_url}:predict -d @-"
    )
