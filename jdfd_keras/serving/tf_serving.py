"""TensorFlow Serving as a child process: its binary or its Docker image.

Takes models and options; writes TensorFlow Serving's configuration files, builds its command line,
runs it and forwards signals. Imports no TensorFlow.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import urllib3

from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig, write_models_config

BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving:2.20.0"
METRICS_PATH = "/monitoring/prometheus/metrics"
POLL_S = 0.2


def run_model_server(
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    on_ready: Callable[[str], None],
    *,
    docker: bool,
    models_config: Path | None = None,
) -> None:
    """Run TensorFlow Serving until SIGTERM or SIGINT; from the main thread.

    Args:
        configs: The models.
        options: Address and limits.
        on_ready: Called with the base URL once all models accept requests.
        docker: Run the Docker image instead of the binary on the PATH.
        models_config: The file that `configs` was read from, passed on unchanged; if None, a file
            is written.

    Raises:
        ValueError: If the ports are equal or 0.
        OSError: If a port is in use, or TensorFlow Serving exits unexpectedly.
    """
    _check_ports(options, options.host if docker else "")
    with tempfile.TemporaryDirectory(prefix="jdfd-serving-") as directory:
        files = write_files(Path(directory), configs, options, models_config)
        command = build_flags(files, options)
        if docker:
            base_paths = [config.base_path for config in configs]
            command = [*_docker_run([*base_paths, *files.values()], options), *command]
        else:
            command = [BINARY, *command]
        _run_child(command, url_of(options), [config.name for config in configs], on_ready)


def write_files(
    directory: Path,
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    models_config: Path | None,
) -> dict[str, Path]:
    """Write TensorFlow Serving's configuration files.

    Args:
        directory: Output folder.
        configs: The models.
        options: Batch options.
        models_config: An existing file of models, used instead of writing one.

    Returns:
        Absolute paths by the flag that takes them.
    """
    texts = {
        "monitoring_config_file": f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'
    }
    if not models_config:
        texts["model_config_file"] = write_models_config(configs)
    if options.max_batch_size > 1:
        texts["batching_parameters_file"] = (
            f"max_batch_size {{ value: {options.max_batch_size} }}\n"
            f"batch_timeout_micros {{ value: {round(1000 * options.batch_timeout_ms)} }}\n"
            # In the worst case every waiting request is a separate batch.
            f"max_enqueued_batches {{ value: {options.max_queue} }}\n"
            f"num_batch_threads {{ value: {os.cpu_count() or 1} }}\n"
        )
    files = {"model_config_file": models_config.resolve()} if models_config else {}
    for flag, text in texts.items():
        files[flag] = directory.resolve() / f"{flag}.pbtxt"
        write_text_atomically(files[flag], text)
    return files


def build_flags(files: dict[str, Path], options: ServeOptions) -> list[str]:
    """Build the flags of `tensorflow_model_server`.

    Args:
        files: The result of `write_files`.
        options: Address and limits.

    Returns:
        Flags, without the name of the program.
    """
    flags = {
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
    } | files
    if "batching_parameters_file" in files:
        flags["enable_batching"] = "true"
    return [f"--{name}={value}" for name, value in flags.items()]


def url_of(options: ServeOptions) -> str:
    """Return the base URL of REST as seen from this machine."""
    host = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    return f"http://{_bracket(host)}:{options.port}"


def is_ready(url: str, name: str) -> bool:
    """Check once whether a model is loaded: its status is 200 even while it loads."""
    try:
        response = urllib3.request(
            "GET", f"{url}/v1/models/{name}/metadata", retries=False, timeout=2.0
        )
    except urllib3.exceptions.HTTPError:
        return False
    return response.status == 200


def _docker_run(paths: Sequence[Path], options: ServeOptions) -> list[str]:
    # As process 1 of a container TensorFlow Serving would ignore SIGTERM, hence --init.
    command = ["docker", "run", "--rm", "--init", "--entrypoint", BINARY]
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
    command: Sequence[str], url: str, names: Sequence[str], on_ready: Callable[[str], None]
) -> None:
    """Run a command and forward signals to it; an exit without a signal is an error."""
    print(f"Starting: {' '.join(command)}", file=sys.stderr, flush=True)
    # Its output goes to stderr: stdout is reserved for the curl command.
    with subprocess.Popen(command, stdout=2) as child, _forward_signals(child) as forwarded:
        try:
            waiting = list(names)
            while waiting and child.poll() is None:
                if is_ready(url, waiting[0]):
                    waiting.pop(0)
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(POLL_S)
            if not waiting and not forwarded:
                on_ready(url)
            status = child.wait()
        finally:
            child.terminate()
    if not forwarded:
        raise OSError(
            f"Expected {command[0]} to run until it is stopped; it exited with code {status}. "
            "See its log above, or try --engine embedded, a server without it."
        )


@contextlib.contextmanager
def _forward_signals(child: subprocess.Popen) -> Iterator[list[int]]:
    """Forward SIGTERM and SIGINT to a child process, and list the forwarded ones."""
    forwarded = []

    def forward(number: int, _) -> None:
        forwarded.append(number)
        child.send_signal(number)

    previous = {
        number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield forwarded
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
