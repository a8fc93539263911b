"""TensorFlow Serving as a child process: its own binary, or its Docker image.

Takes models and options; writes the files that TensorFlow Serving wants, builds its command line,
runs it and passes signals on. Imports no TensorFlow.
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

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig, write_models_config

BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving:2.20.0"
METRICS_PATH = "/monitoring/prometheus/metrics"
POLL_S = 0.2


def run_model_server(
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    ready: Callable[[str], None],
    *,
    docker: bool,
    models_config: Path | None = None,
) -> None:
    """Run TensorFlow Serving until it ends or SIGTERM or SIGINT comes; from the main thread.

    Args:
        configs: The models.
        options: Address and limits.
        ready: Called with its URL once all models answer.
        docker: In its image, instead of by the binary on the PATH.
        models_config: The file that `configs` came from, which it is given as it is; one is
            written if there is none.

    Raises:
        ValueError: If it cannot take such ports.
        OSError: If a port is taken, or it ends by itself.
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
        _run_child(command, url_of(options), [config.name for config in configs], ready)


def write_files(
    directory: Path,
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    models_config: Path | None,
) -> dict[str, Path]:
    """Write what TensorFlow Serving reads at start.

    Args:
        directory: Where to.
        configs: The models.
        options: Their batches.
        models_config: A file of the models that is there already.

    Returns:
        Absolute paths by the flags that name them.
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
            # Each request that waits may be a batch of its own.
            f"max_enqueued_batches {{ value: {options.max_queue} }}\n"
            f"num_batch_threads {{ value: {os.cpu_count() or 1} }}\n"
        )
    files = {"model_config_file": models_config.resolve()} if models_config else {}
    for flag, text in texts.items():
        files[flag] = directory.resolve() / f"{flag}.pbtxt"
        files[flag].write_text(text, encoding="utf-8")
    return files


def build_flags(files: dict[str, Path], options: ServeOptions) -> list[str]:
    """Build the flags of `tensorflow_model_server`.

    Args:
        files: What `write_files` gave.
        options: Address and limits.

    Returns:
        Its command line but for its name.
    """
    flags = {
        "port": options.grpc_port,
        "rest_api_port": options.port,
        "rest_api_timeout_in_ms": round(1000 * options.timeout_s),
        "allow_version_labels_for_unavailable_models": "true",
        "enable_grpc_healthcheck_service": "true",
        # A version that does not load is else tried again for five minutes, and with no thread of
        # its own for loading holds up the next good one.
        "num_load_threads": 2,
        "max_num_load_retries": 1,
        "file_system_poll_wait_seconds": 1,
    } | files
    if "batching_parameters_file" in files:
        flags["enable_batching"] = "true"
    return [f"--{name}={value}" for name, value in flags.items()]


def url_of(options: ServeOptions) -> str:
    """Name the address that REST is reached at from this machine."""
    host = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    return f"http://{_bracket(host)}:{options.port}"


def is_ready(url: str, name: str) -> bool:
    """Ask once whether a model answers: the states of its versions say 200 while they load."""
    try:
        answer = urllib3.request(
            "GET", f"{url}/v1/models/{name}/metadata", retries=False, timeout=2.0
        )
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200


def _docker_run(paths: Sequence[Path], options: ServeOptions) -> list[str]:
    # As the first process of a container it would not hear SIGTERM: --init is there before it.
    words = ["docker", "run", "--rm", "--init", "--entrypoint", BINARY]
    for port in (options.port, options.grpc_port):
        words += ["--publish", f"{_bracket(options.host)}:{port}:{port}"]
    # At the same paths as outside, so that one file of models serves every engine.
    for path in dict.fromkeys(paths):
        words += ["--mount", f"type=bind,source={path},target={path},readonly"]
    return [*words, IMAGE]


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_ports(options: ServeOptions, host: str) -> None:
    if 0 in (options.port, options.grpc_port) or options.port == options.grpc_port:
        raise ValueError(
            f"Expected two different ports for TensorFlow Serving, none of them 0; got REST "
            f"{options.port} and gRPC {options.grpc_port}. Name two ports that are free, or take "
            "--engine embedded, which finds free ones."
        )
    # TensorFlow Serving goes on without REST where its port is taken; another server would answer
    # in its place.
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
    command: Sequence[str], url: str, names: Sequence[str], ready: Callable[[str], None]
) -> None:
    """Run a command till its end, passing signals on; only an end that was asked for is none."""
    print(f"Starting: {' '.join(command)}", file=sys.stderr, flush=True)
    # What it prints is for people: stdout is for the curl line alone.
    with subprocess.Popen(command, stdout=2) as child, _passing_signals(child) as passed:
        try:
            waiting = list(names)
            while waiting and child.poll() is None:
                if is_ready(url, waiting[0]):
                    waiting.pop(0)
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(POLL_S)
            if not waiting and not passed:
                ready(url)
            status = child.wait()
        finally:
            child.terminate()
    if not passed:
        raise OSError(
            f"Expected {command[0]} to run until it is stopped; it ended with exit code {status}. "
            "What it printed last says why; --engine embedded is a server without it."
        )


@contextlib.contextmanager
def _passing_signals(child: subprocess.Popen) -> Iterator[list[int]]:
    """Pass SIGTERM and SIGINT on to a child, and list those that came."""
    passed = []

    def pass_on(number: int, _) -> None:
        passed.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
