"""`serve`: start TensorFlow Serving or the embedded server, with the same options.

Takes an exported model or TensorFlow Serving's file of models. Runs TensorFlow Serving as a child
process where its binary or Docker is available, otherwise the embedded server, which alone imports
TensorFlow.
"""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import urllib3

from jdfd_keras.client.signatures import SERVING_DEFAULT, find_model
from jdfd_keras.inference.engine import check_engine_options
from jdfd_keras.io.console import import_tensorflow, print_message
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FileServiceOptions,
    LimitOptions,
    ServeOptions,
)
from jdfd_keras.serving.engine_choice import BINARY, DOCKER, EMBEDDED, PROGRAM, choose_engine
from jdfd_keras.serving.jobs.access import check_exposure
from jdfd_keras.serving.model_config import ModelConfig, configure_directory, read_models_config
from jdfd_keras.training.headpose_run import check_has_network

IMAGE = "tensorflow/serving:2.20.0"
ALL_ADDRESSES = ("", "0.0.0.0", "::")
POLL_S = 0.2


def serve(
    model_directory: str | Path | None = None,
    options: ServeOptions | None = None,
    *,
    models_config: str | Path | None = None,
    engine: EngineOptions | None = None,
    files: FileServiceOptions | None = None,
    limits: LimitOptions | None = None,
    opinions: Sequence[str | Path] = (),
    credentials: CredentialOptions | None = None,
) -> None:
    """Serve exported models until SIGTERM or SIGINT; from the main thread.

    Writes the chosen server and the options it does not support to stderr, and an example request
    to stdout once all models accept requests.

    Args:
        model_directory: `saved_models/<name>`, or a name, as for `find_model`. Its newest version
            is served under that name and replaced when a newer one appears.
        options: Server, address and limits.
        models_config: Instead of `model_directory`: models, version policies and labels in
            TensorFlow Serving's text format.
        engine: Backend and precision of the scores, of the embedded server only.
        files: Token of all requests; and a file service on the port of REST, if its `files` is
            true. Both of the embedded server only, the latter of a single model.
        limits: Limits of one file of that service.
        opinions: Further models and plug-ins of that service, each of which judges each file.
        credentials: Whose Content Credentials that service trusts.

    Raises:
        ValueError: If not exactly one of both is given, an option is invalid, TensorFlow Serving
            is to score by another engine than its own, to serve files or to check a token, or
            other machines could use the embedded server or a container without a token.
        OSError: If no model can be loaded, the requested engine is not available or exits
            unexpectedly, or an address cannot be bound.

    Example:
        >>> serve("saved_models/dectetor", ServeOptions(engine="embedded"))
        Traceback (most recent call last):
        OSError: Expected ...saved_models/dectetor to be an exported model, ...
    """
    options, engine = options or ServeOptions(), engine or EngineOptions()
    files = files or FileServiceOptions()
    check_engine_options(engine)
    if files.files:
        check_exposure(options.host, files.token)
    elif opinions:
        raise ValueError(
            f"Expected --files with --opinion; got --opinion {opinions[0]} alone. Add --files, or "
            "list models of TensorFlow Serving's API in a --models-config."
        )
    if models_config is not None and model_directory is None:
        models_config = Path(models_config)
        configs = read_models_config(models_config)
    elif model_directory is not None and models_config is None:
        directory = find_model(model_directory)
        check_has_network(directory)
        configs = (configure_directory(directory),)
    else:
        raise ValueError(
            f"Expected either a model or a models_config; got {model_directory} and "
            f"{models_config}. A models_config can have a single model, too."
        )
    if files.files and len(configs) != 1:
        raise ValueError(
            f"Expected a single model with --files; got {len(configs)} in {models_config}. Serve "
            "files with a server of their own: jdfd-keras app --model MODEL."
        )
    program, reason = choose_engine(
        options, engine, has_files=files.files, has_token=bool(files.token)
    )
    if program == EMBEDDED:
        check_exposure(options.host, files.token)
    print_message(f"Engine: {program} ({reason}).")
    if program == EMBEDDED:
        print_message("Loading TensorFlow ...")
        import_tensorflow()
        service = None
        if files.files:
            from jdfd_keras.serving.app import open_file_service

            service = open_file_service(
                *(configs[0].base_path, files, limits, engine),
                opinions=opinions,
                credentials=credentials,
            )
        _run_embedded(configs, options, engine, files, service)
        return
    is_exposed = program == BINARY
    _print_limitations(options, is_exposed)
    _check_ports(options, options.host if program == DOCKER else "")
    with TemporaryFolder() as directory:
        flags = write_flags(Path(directory), options)
        if models_config is not None:
            flags["model_config_file"] = models_config.resolve()
        else:
            flags |= {"model_name": configs[0].name, "model_base_path": configs[0].base_path}
        command = [PROGRAM]
        if program == DOCKER:
            written = [value for value in flags.values() if isinstance(value, Path)]
            command = _docker_run([*written, *(config.base_path for config in configs)], options)
        command += [f"--{name}={value}" for name, value in flags.items()]
        host = _bracket("127.0.0.1" if options.host in ALL_ADDRESSES else options.host)
        url, grpc_target = f"http://{host}:{options.port}", f"{host}:{options.grpc_port}"
        model_urls = [f"{url}/v1/models/{config.name}" for config in configs]
        _run_child(command, model_urls, lambda: _announce(url, grpc_target, configs, is_exposed))


def _run_embedded(
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    engine: EngineOptions,
    files: FileServiceOptions,
    service: contextlib.AbstractContextManager | None,
) -> None:
    from jdfd_keras.serving.app import describe_service
    from jdfd_keras.serving.server.model_server import ModelServer, run_server

    with contextlib.ExitStack() as stack:
        routes = stack.enter_context(service) if service else None

        def announce(server: ModelServer) -> None:
            _announce(server.url, server.grpc_target, configs, token=files.token)
            if routes:
                print_message(describe_service(server.url, routes, files))

        run_server(configs, options, announce, engine, routes, files.token)


def _print_limitations(options: ServeOptions, is_exposed: bool) -> None:
    """Print the options that TensorFlow Serving does not support."""
    limitations = {
        "has no limit on the size of a request: --max-body-mb must be enforced by a proxy.": True,
        f"rejects a request of more than {options.max_batch_size} faces (--max-batch-size).": (
            options.max_batch_size > 1
        ),
        f"listens on all addresses of this machine, whatever --host is (got {options.host}), and "
        "checks no token: protect it by a firewall.": is_exposed,
    }
    for text, applies in limitations.items():
        if applies:
            print_message(f"Warning: TensorFlow Serving {text}")


def _announce(
    url: str,
    grpc_target: str,
    configs: Sequence[ModelConfig],
    is_exposed: bool = False,
    token: str = "",
) -> None:
    print(_write_example_call(f"{url}/v1/models/{configs[0].name}", token), flush=True)
    if is_exposed:  # repeated, since the log of TensorFlow Serving hides the warning at the start
        print_message(
            "WARNING: OPEN TO THE NETWORK, whatever --host is: anyone who can reach this machine "
            "can send requests. Protect it by a firewall, or use --engine embedded."
        )
    names = ", ".join(config.name for config in configs)
    print_message(
        f"Ready: {names} at {url} (REST) and grpc://{grpc_target} (gRPC). Stop with Ctrl-C."
    )


def _write_example_call(model_url: str, token: str = "") -> str:
    """Return a call of curl that scores a face, or one that suits a model of other inputs."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = urllib3.request(
        "GET", f"{model_url}/metadata", headers=headers, retries=False, timeout=5.0
    )
    metadata = response.json()
    # The token itself is not printed.
    curl = 'curl -s -H "Authorization: Bearer $JDFD_KERAS_TOKEN"' if token else "curl -s"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    if "image_bytes" not in signatures.get(SERVING_DEFAULT, {}).get("inputs", {}):
        return f"{curl} {model_url}/metadata"
    # By a pipe, since a face is too long for a command line; curl removes the line breaks.
    return (
        """(printf '{"instances": [{"b64": "'; base64 < face.jpg; printf '"}]}') | """
        f"{curl} {model_url}:predict -d @-"
    )


def write_flags(directory: Path, options: ServeOptions) -> dict[str, object]:
    """Write TensorFlow Serving's files for metrics and batching to a folder.

    Returns:
        The flags of `tensorflow_model_server`, apart from those of the model; files are absolute.

    Example:
        >>> flags = write_flags(Path("."), ServeOptions(grpc_port=9000))
        >>> flags["port"], flags["batching_parameters_file"].name
        (9000, 'batching_parameters_file.pbtxt')
    """
    path = "/monitoring/prometheus/metrics"
    texts = {"monitoring_config_file": f'prometheus_config {{ enable: true path: "{path}" }}\n'}
    if options.max_batch_size > 1:
        texts["batching_parameters_file"] = (
            f"max_batch_size {{ value: {options.max_batch_size} }}\n"
            f"batch_timeout_micros {{ value: {round(1000 * options.batch_timeout_ms)} }}\n"
            # In the worst case every waiting request is a separate batch.
            f"max_enqueued_batches {{ value: {options.max_queue} }}\n"
            f"num_batch_threads {{ value: {os.cpu_count() or 1} }}\n"
        )
    flags: dict[str, object] = {
        "port": options.grpc_port,
        "rest_api_port": options.port,
        "rest_api_timeout_in_ms": round(1000 * options.timeout_s),
        "allow_version_labels_for_unavailable_models": "true",
        "enable_grpc_healthcheck_service": "true",
        # By default a version that fails to load is retried for five minutes and, without loading
        # threads, blocks the next version.
        "num_load_threads": 2,
        "max_num_load_retries": 1,
        "file_system_poll_wait_seconds": 1,
    }
    if options.max_batch_size > 1:
        flags["enable_batching"] = "true"
    for name, text in texts.items():
        flags[name] = file = directory.resolve() / f"{name}.pbtxt"
        write_text_atomically(file, text)
    return flags


def _docker_run(paths: Sequence[Path], options: ServeOptions) -> list[str]:
    # As process 1 of a container TensorFlow Serving would ignore SIGTERM, hence --init.
    command = ["docker", "run", "--rm", "--init", "--entrypoint", PROGRAM]
    for port in (options.port, options.grpc_port):
        command += ["--publish", f"{_bracket(options.host)}:{port}:{port}"]
    # Mounted at the same paths as outside, so that one file of models works for every engine.
    for path in dict.fromkeys(paths):
        command += ["--mount", f"type=bind,source={path},target={path},readonly"]
    return [*command, IMAGE]


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_ports(options: ServeOptions, host: str) -> None:
    if 0 in (options.port, options.grpc_port) or options.port == options.grpc_port:
        raise ValueError(
            f"Expected two different ports other than 0 for TensorFlow Serving; got REST "
            f"{options.port} and gRPC {options.grpc_port}. Choose two free ports, or use "
            "--engine embedded, which can find free ones."
        )
    # If the REST port is in use, TensorFlow Serving starts without REST, and the other server
    # would answer instead.
    for port in (options.port, options.grpc_port):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, port), family=family).close()
        except (OSError, OverflowError) as error:
            raise OSError(
                f"Expected port {port} of {host or 'this machine'} to be free; got '{error}'. "
                "Is another server running there? Try another --port and --grpc-port."
            ) from error


def _run_child(
    command: Sequence[str], model_urls: Sequence[str], on_ready: Callable[[], None]
) -> None:
    """Run a command and forward signals to it; an exit without a signal is an error."""
    print_message(f"Starting: {' '.join(command)}")
    waiting, forwarded = list(model_urls), []
    # Its output goes to stderr: stdout is reserved for the curl command.
    with subprocess.Popen(command, stdout=2) as child:

        def forward(number: int, _) -> None:
            forwarded.append(number)
            child.send_signal(number)

        handlers = {
            number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while waiting and child.poll() is None:
                if _is_ready(waiting[0]):
                    waiting.pop(0)
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(POLL_S)
            if not waiting and not forwarded:
                on_ready()
            status = child.wait()
        finally:
            child.terminate()
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if not forwarded:
        raise OSError(
            f"Expected {command[0]} to run until it is stopped; it exited with code {status}. "
            "See its log above, or try --engine embedded, a server without it."
        )


def _is_ready(model_url: str) -> bool:
    """Check once whether a model is loaded: its status is 200 even while it loads."""
    try:
        response = urllib3.request("GET", f"{model_url}/metadata", retries=False, timeout=2.0)
    except urllib3.exceptions.HTTPError:
        return False
    return response.status == 200
