"""The one way to start a server: whichever engine this machine has, with the same flags.

Takes an exported model or TensorFlow Serving's file of models; runs TensorFlow Serving where it
is there, and the embedded server where not. Imports TensorFlow for the latter alone, and late.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from jdfd_keras.client.signatures import SCORE_BYTES
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import ENGINES, ServeOptions
from jdfd_keras.serving import tf_serving as tensorflow_model_server
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

    Says on stderr which engine runs and what it cannot keep to, and prints a call to try to
    stdout once all models answer.

    Args:
        model_directory: `saved_models/<name>`, of which the newest version is served under that
            name, and a newer one once it is there.
        options: Engine, address and limits.
        models_config: In the place of `model_directory`: models, version policies and labels in
            TensorFlow Serving's text format.

    Raises:
        ValueError: If not just one of both is given, or an option suits no server.
        OSError: If there is no model or none that loads, the engine that was asked for is not
            there or ends by itself, or an address cannot be had.
    """
    options = options or ServeOptions()
    if (model_directory is None) == (models_config is None):
        raise ValueError(
            f"Expected a model or a models_config, and not both; got {model_directory} and "
            f"{models_config}. A file of models can have a single one, too."
        )
    models_config = Path(models_config) if models_config else None
    configs = (
        read_models_config(models_config)
        if models_config
        else (configure_directory(model_directory),)
    )
    engine, reason = choose_engine(options)
    print(f"Engine: {engine}, since {reason}.", file=sys.stderr)
    for difference in _list_differences(engine, options):
        print(f"Warning: {difference}", file=sys.stderr, flush=True)

    if engine == EMBEDDED:
        import_tensorflow()
        from jdfd_keras.serving.server.model_server import run_server

        run_server(configs, options, lambda server: _tell(server.url, server.grpc_target, configs))
    else:
        tensorflow_model_server.run_model_server(
            configs,
            options,
            lambda url: _tell(
                url,
                f"{urlsplit(url).hostname}:{options.grpc_port}",
                configs,
                exposed=_is_exposed(engine, options),
            ),
            docker=engine == DOCKER,
            models_config=models_config,
        )


def choose_engine(options: ServeOptions) -> tuple[str, str]:
    """Choose what serves.

    Args:
        options: The engine asked for; `auto` takes the first that is there.

    Returns:
        One of ENGINES but `auto`, and why.

    Raises:
        ValueError: If there is no such engine.
        OSError: If the engine that was asked for is not there.
    """
    asked = options.engine
    if asked not in ENGINES:
        raise ValueError(
            f"Expected an engine among {', '.join(ENGINES)}; got {asked!r}. auto takes what is "
            "there."
        )
    if asked == EMBEDDED:
        return EMBEDDED, "it was asked for"
    if asked == AUTO and 0 in (options.port, options.grpc_port):
        return EMBEDDED, "it alone finds a free port"
    binary = shutil.which(tensorflow_model_server.BINARY)
    if binary and asked in (AUTO, BINARY):
        return BINARY, f"{binary} is there"
    if asked == BINARY:
        raise OSError(
            f"Expected {tensorflow_model_server.BINARY} on the PATH; there is none. Install "
            "TensorFlow Serving, or try --engine docker or --engine embedded."
        )
    version, complaint = ask_docker()
    if version:
        return DOCKER, f"Docker {version} answers"
    if asked == DOCKER:
        raise OSError(
            f"Expected a Docker engine to answer; got '{complaint}'. Start it, see that "
            "`docker version` shows a server, or try --engine embedded."
        )
    return (
        EMBEDDED,
        f"there is neither {tensorflow_model_server.BINARY} nor a Docker engine ({complaint})",
    )


def ask_docker() -> tuple[str, str]:
    """Ask for the version of the Docker engine.

    Returns:
        The version and an empty text, or the other way round what was said in its place.
    """
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if answer.returncode == 0 and answer.stdout.strip():
        return answer.stdout.strip(), ""
    return "", (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]


def _list_differences(engine: str, options: ServeOptions) -> list[str]:
    """List the options that an engine does not keep to."""
    if engine == EMBEDDED:
        return []
    differences = [
        "TensorFlow Serving has no limit on the size of a request: --max-body-mb is for a proxy "
        "before it."
    ]
    if options.max_batch_size > 1:
        differences.append(
            f"TensorFlow Serving refuses a request of more than {options.max_batch_size} faces "
            "(--max-batch-size)."
        )
    if _is_exposed(engine, options):
        differences.append(
            f"TensorFlow Serving listens on all addresses of this machine, not on {options.host} "
            "alone (--host): see to it that a firewall stands before it."
        )
    return differences


def _is_exposed(engine: str, options: ServeOptions) -> bool:
    return engine == BINARY and options.host not in ("", "0.0.0.0", "::")


def _tell(
    url: str, grpc_target: str, configs: Sequence[ModelConfig], *, exposed: bool = False
) -> None:
    print(write_example_call(url, configs[0].name), flush=True)
    if exposed:  # said at start, too, and lost by now among what TensorFlow Serving printed
        print(
            "WARNING: OPEN TO THE NETWORK, whatever --host says: whoever reaches this machine may "
            "ask. Put a firewall before it, or stop it and take --engine embedded.",
            file=sys.stderr,
        )
    names = ", ".join(config.name for config in configs)
    print(
        f"Ready: {names} at {url} (REST) and grpc://{grpc_target} (gRPC). Stop with Ctrl-C.",
        file=sys.stderr,
        flush=True,
    )


def write_example_call(url: str, name: str) -> str:
    """Write a command line that shows a served model at work.

    Args:
        url: Where REST answers.
        name: A model that does.

    Returns:
        A call of curl that scores `face.jpg`, or asks what there is, of a model that takes no
        image files.
    """
    model_url = f"{url}/v1/models/{name}"
    metadata = urllib3.request("GET", f"{model_url}/metadata", retries=False, timeout=5.0).json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    if "image_bytes" not in signatures.get(SCORE_BYTES, {}).get("inputs", {}):
        return f"curl -s {model_url}/metadata"
    # Through a pipe, since a face is too long for a command line; curl drops the line ends.
    return (
        """(printf '{"instances": [{"b64": "'; base64 < face.jpg; printf '"}]}') | """
        f"curl -s {model_url}:predict -d @-"
    )
