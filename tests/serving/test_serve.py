"""Starting a server: which engine is chosen, and what TensorFlow Serving is told.

TensorFlow Serving and Docker are stood in for by programs that write down how they were called:
neither runs here.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving import serve as launch

# Writes its command line and the files in it to $CALLED, then does what $AFTER says.
STAND_IN = f"""#!{sys.executable} -S
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

if sys.argv[1] == "version":
    print(os.environ["DOCKER_VERSION"])
    sys.exit(not os.environ["DOCKER_VERSION"])
words = [word[2:] for word in sys.argv[1:] if word.startswith("--") and "=" in word]
flags = dict(word.split("=", 1) for word in words)
files = {{name: open(path).read() for name, path in flags.items() if name.endswith("file")}}
with open(os.environ["CALLED"], "w") as file:
    json.dump({{"argv": sys.argv, "flags": flags, "files": files}}, file)
if os.environ["AFTER"] != "serve":
    sys.exit(int(os.environ["AFTER"]))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        signature = {{"inputs": {{os.environ["TAKES"]: {{}}}}}}
        signatures = {{"signature_def": {{"serving_default": signature}}}}
        body = {{"metadata": {{"signature_def": signatures}}}}
        self.send_response(200 if self.path == "/v1/models/faces/metadata" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


print("a word of the child")
sys.stdout.flush()
time.sleep(0.3)
HTTPServer(("127.0.0.1", int(flags["rest_api_port"])), Handler).serve_forever()
"""


@pytest.fixture
def model(tmp_path):
    """A folder that looks like an exported model."""
    version = tmp_path / "faces" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    return version.parent


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts stand-ins on an otherwise empty PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("CALLED", str(tmp_path / "called.json"))
    monkeypatch.setenv("AFTER", "3")
    monkeypatch.setenv("TAKES", "image_bytes")
    monkeypatch.setenv("DOCKER_VERSION", "")

    def put(*names: str) -> None:
        for name in names:
            (programs / name).write_text(STAND_IN, encoding="utf-8")
            (programs / name).chmod(0o755)

    return put


@pytest.fixture
def ports():
    """Options with two free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(2)]
        port, grpc_port = (each.getsockname()[1] for each in sockets)
    return {"port": port, "grpc_port": grpc_port}


def read_call(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "called.json").read_text(encoding="utf-8"))


def test_the_first_engine_that_is_there_is_taken(install, monkeypatch):
    assert launch.choose_engine(ServeOptions())[0] == "embedded"
    install("docker")  # the command alone, as on a machine whose engine is stopped
    engine, reason = launch.choose_engine(ServeOptions())
    assert engine == "embedded"
    assert "nor a Docker engine (exit code 1)" in reason
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    assert launch.choose_engine(ServeOptions()) == ("docker", "Docker 28.2.2 answers")
    install("tensorflow_model_server")
    assert launch.choose_engine(ServeOptions())[0] == "tensorflow-model-server"
    for engine in ("docker", "embedded"):
        assert launch.choose_engine(ServeOptions(engine=engine))[0] == engine
    # TensorFlow Serving takes no free port by itself.
    assert launch.choose_engine(ServeOptions(port=0))[0] == "embedded"


def test_an_engine_that_does_not_answer_in_time_is_none(install, monkeypatch, tmp_path):
    slow = tmp_path / "bin" / "docker"
    slow.write_text(f"#!{sys.executable} -S\nimport time\ntime.sleep(60)\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr(launch, "DOCKER_TIMEOUT_S", 0.3)
    engine, reason = launch.choose_engine(ServeOptions())
    assert engine == "embedded"
    assert "timed out" in reason


@pytest.mark.parametrize("engine", ["tensorflow-model-server", "docker"])
def test_an_engine_asked_for_must_be_there(install, model, engine):
    with pytest.raises(OSError, match=r"Expected .*(there is none|No such file).*--engine"):
        launch.serve(model, ServeOptions(engine=engine))


def test_tensorflow_serving_is_told_what_the_options_say(install, model, ports, tmp_path, capsys):
    install("tensorflow_model_server")
    options = ServeOptions(
        **ports, max_batch_size=12, batch_timeout_ms=2.5, timeout_s=7.5, max_queue=99
    )
    with pytest.raises(OSError, match="ended with exit code 3"):
        launch.serve(model, options)
    call = read_call(tmp_path)
    paths = {name: call["flags"].pop(name) for name in call["files"]}
    assert all(Path(path).is_absolute() for path in paths.values())
    assert call["flags"] == {
        "port": str(ports["grpc_port"]),
        "rest_api_port": str(ports["port"]),
        "rest_api_timeout_in_ms": "7500",
        "allow_version_labels_for_unavailable_models": "true",
        "enable_grpc_healthcheck_service": "true",
        "num_load_threads": "2",
        "max_num_load_retries": "1",
        "file_system_poll_wait_seconds": "1",
        "enable_batching": "true",
    }
    config = text_format.Parse(call["files"]["model_config_file"], ModelServerConfig())
    (served,) = config.model_config_list.config
    assert (served.name, served.base_path) == ("faces", str(model))
    assert call["files"]["batching_parameters_file"].splitlines() == [
        "max_batch_size { value: 12 }",
        "batch_timeout_micros { value: 2500 }",
        "max_enqueued_batches { value: 99 }",
        f"num_batch_threads {{ value: {os.cpu_count()} }}",
    ]
    assert "enable: true" in call["files"]["monitoring_config_file"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Engine: tensorflow-model-server, since /" in printed.err
    for unkept in ("--max-body-mb", "more than 12 faces", "all addresses of this machine"):
        assert unkept in printed.err
    assert not Path(paths["model_config_file"]).exists()


def test_batches_of_one_are_no_batching(install, model, ports, tmp_path):
    install("tensorflow_model_server")
    with pytest.raises(OSError, match="exit code 3"):
        launch.serve(model, ServeOptions(**ports, max_batch_size=1))
    assert not {"enable_batching", "batching_parameters_file"} & set(read_call(tmp_path)["flags"])


def test_docker_runs_the_pinned_image_with_the_same_paths_and_flags(
    install, model, ports, tmp_path, monkeypatch, capsys
):
    install("docker")
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    config = tmp_path / "models.config"
    text = f'name: "faces" base_path: "{model}" model_platform: "tensorflow"'
    config.write_text(f"model_config_list {{ config {{ {text} }} }} # mine\n", encoding="utf-8")
    with pytest.raises(OSError, match="docker to run .* exit code 3"):
        launch.serve(options=ServeOptions(**ports), models_config=config)
    call = read_call(tmp_path)
    argv = call["argv"][1:]
    image = argv.index("tensorflow/serving:2.20.0")
    before, after = argv[:image], argv[image + 1 :]
    words = ["run", "--rm", "--init", "--entrypoint", "tensorflow_model_server"]
    for port in (ports["port"], ports["grpc_port"]):
        words += ["--publish", f"127.0.0.1:{port}:{port}"]
    files = call["flags"]
    mounted = [model, config, files["monitoring_config_file"], files["batching_parameters_file"]]
    for path in mounted:
        words += ["--mount", f"type=bind,source={path},target={path},readonly"]
    assert sorted(before) == sorted(words)
    assert before[:5] == words[:5]
    assert f"--model_config_file={config}" in after
    assert call["files"]["model_config_file"] == config.read_text(encoding="utf-8")
    assert "all addresses" not in capsys.readouterr().err  # Docker publishes on the host asked for


@pytest.mark.parametrize(("takes", "call"), [("image_bytes", ":predict -d @-"), ("x", "/metadata")])
def test_a_call_is_shown_once_it_answers_and_a_signal_is_passed_on(
    install, model, ports, monkeypatch, tmp_path, takes, call
):
    install("tensorflow_model_server")
    monkeypatch.setenv("AFTER", "serve")
    monkeypatch.setenv("TAKES", takes)
    code = (
        "import sys; from jdfd_keras.serving import serve as launch\n"
        "from jdfd_keras.options import *\n"
        f"launch.serve({str(model)!r}, ServeOptions(port={ports['port']}, "
        f"grpc_port={ports['grpc_port']})); sys.exit('tensorflow' in sys.modules)"
    )
    begun = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as run:
        line = run.stdout.readline()
        assert time.monotonic() - begun > 0.3, "before it answered"
        url = f"http://127.0.0.1:{ports['port']}/v1/models/faces"
        assert line.rstrip().endswith(f"curl -s {url}{call}")
        run.send_signal(signal.SIGTERM)
        assert run.stdout.read() == ""  # what the child printed went to stderr
        *_, warning, ready = run.stderr.read().splitlines()
        assert warning.startswith("WARNING: OPEN TO THE NETWORK")
        assert ready.startswith("Ready: faces")
        assert run.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports["port"])).close()


def test_ports_that_tensorflow_serving_cannot_have_are_refused(install, model, ports):
    install("tensorflow_model_server")
    named = {"engine": "tensorflow-model-server"}
    with pytest.raises(ValueError, match="REST 0 and gRPC 8500"):
        launch.serve(model, ServeOptions(port=0, **named))
    with pytest.raises(ValueError, match="two different ports"):
        launch.serve(model, ServeOptions(port=8500, grpc_port=8500, **named))
    with socket.create_server(("127.0.0.1", ports["port"])), pytest.raises(OSError, match="in use"):
        launch.serve(model, ServeOptions(**ports, **named))


def test_a_model_or_a_file_of_models_and_not_both(model):
    with pytest.raises(ValueError, match="not both; got None and None"):
        launch.serve()
    with pytest.raises(ValueError, match="not both"):
        launch.serve(model, models_config=model)
    with pytest.raises(ValueError, match="an engine among auto"):
        launch.serve(model, ServeOptions(engine="torch"))
