"""Starting a server: the choice of the engine, and the flags of TensorFlow Serving.

TensorFlow Serving and Docker are replaced by fake programs that record how they were called.
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

from jdfd_keras.options import EngineOptions, FileServiceOptions, ServeOptions
from jdfd_keras.serving import serve as serve_module

BINARY = "tensorflow-model-server"
TOKEN = "0123456789abcdef"

# Writes its command line and the files in it to $CALLED, then exits or serves as $AFTER tells it.
FAKE_PROGRAM = f"""#!{sys.executable} -S
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

if sys.argv[1] == "version":
    print(os.environ["DOCKER_VERSION"])
    sys.exit(not os.environ["DOCKER_VERSION"])
arguments = [a[2:] for a in sys.argv[1:] if a.startswith("--") and "=" in a]
flags = dict(argument.split("=", 1) for argument in arguments)
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


print("output of the child")
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
    """A function that installs fake programs on an otherwise empty PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("CALLED", str(tmp_path / "called.json"))
    monkeypatch.setenv("AFTER", "3")
    monkeypatch.setenv("TAKES", "image_bytes")
    monkeypatch.setenv("DOCKER_VERSION", "")

    def put(*names: str) -> None:
        for name in names:
            (programs / name).write_text(FAKE_PROGRAM, encoding="utf-8")
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


def test_auto_selects_the_first_available_engine(install, monkeypatch):
    assert serve_module.choose_engine(ServeOptions())[0] == "embedded"
    install("docker")  # the command only, as with a stopped engine
    engine, reason = serve_module.choose_engine(ServeOptions())
    assert engine == "embedded"
    assert "available: exit code 1" in reason
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    assert serve_module.choose_engine(ServeOptions()) == ("docker", "Docker 28.2.2 is running")
    # TensorFlow Serving's program, which listens on all addresses, must be named.
    install("tensorflow_model_server")
    assert serve_module.choose_engine(ServeOptions())[0] == "docker"
    for engine in ("tensorflow-model-server", "docker", "embedded"):
        assert serve_module.choose_engine(ServeOptions(engine=engine))[0] == engine
    # TensorFlow Serving cannot choose a free port.
    assert serve_module.choose_engine(ServeOptions(port=0))[0] == "embedded"


def test_only_the_embedded_server_scores_by_openvino(install, monkeypatch, model):
    install("tensorflow_model_server", "docker")
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    for engine in (EngineOptions("openvino"), EngineOptions(precision="bfloat16")):
        assert serve_module.choose_engine(ServeOptions(), engine)[0] == "embedded"
        for name in ("docker", "tensorflow-model-server"):
            with pytest.raises(ValueError, match=f"--engine {name}.*Try --engine embedded"):
                serve_module.serve(model, ServeOptions(engine=name), engine=engine)
    own = EngineOptions("tensorflow", "float32")
    assert serve_module.choose_engine(ServeOptions(), own)[0] == "docker"
    with pytest.raises(ValueError, match="--backend tensorflow; got int8"):
        serve_module.serve(model, engine=EngineOptions("tensorflow", "int8"))


def test_a_docker_engine_that_times_out_is_not_available(install, monkeypatch, tmp_path):
    slow = tmp_path / "bin" / "docker"
    slow.write_text(f"#!{sys.executable} -S\nimport time\ntime.sleep(60)\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr("jdfd_keras.serving.engine_choice.DOCKER_TIMEOUT_S", 0.3)
    engine, reason = serve_module.choose_engine(ServeOptions())
    assert engine == "embedded"
    assert "timed out" in reason


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "server.example"])
def test_other_machines_need_a_token(install, monkeypatch, model, host):
    install("tensorflow_model_server", "docker")
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    for engine in ("auto", "embedded"):
        with pytest.raises(ValueError, match="Expected a --token with --host"):
            serve_module.serve(model, ServeOptions(engine=engine, host=host))
    with pytest.raises(ValueError, match=r"--host 127\.0\.0\.1 with --engine docker.*proxy"):
        serve_module.serve(model, ServeOptions(engine="docker", host=host))
    options = ServeOptions(host=host)
    assert serve_module.choose_engine(options, has_token=True)[0] == "embedded"


def test_only_the_embedded_server_checks_a_token(install, monkeypatch, model):
    install("tensorflow_model_server", "docker")
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    engine, reason = serve_module.choose_engine(ServeOptions(), has_token=True)
    assert (engine, reason) == ("embedded", "only this engine checks a token")
    files = FileServiceOptions(token=TOKEN)
    for name in ("docker", "tensorflow-model-server"):
        with pytest.raises(ValueError, match="JDFD_KERAS_TOKEN") as caught:
            serve_module.serve(model, ServeOptions(engine=name), files=files)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("engine", ["tensorflow-model-server", "docker"])
def test_a_requested_engine_must_be_available(install, model, engine):
    with pytest.raises(OSError, match=r"Expected .*(got none|No such file).*--engine"):
        serve_module.serve(model, ServeOptions(engine=engine))


def test_options_are_passed_to_tensorflow_serving(install, model, ports, tmp_path, capsys):
    install("tensorflow_model_server")
    options = ServeOptions(
        **ports, engine=BINARY, max_batch_size=12, batch_timeout_ms=2.5, timeout_s=7.5, max_queue=99
    )
    with pytest.raises(OSError, match="exited with code 3"):
        serve_module.serve(model, options)
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
        "model_name": "faces",
        "model_base_path": str(model),
    }
    assert call["files"]["batching_parameters_file"].splitlines() == [
        "max_batch_size { value: 12 }",
        "batch_timeout_micros { value: 2500 }",
        "max_enqueued_batches { value: 99 }",
        f"num_batch_threads {{ value: {os.cpu_count()} }}",
    ]
    assert "enable: true" in call["files"]["monitoring_config_file"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Engine: tensorflow-model-server (found /" in printed.err
    for limitation in ("--max-body-mb", "more than 12 faces", "all addresses of this machine"):
        assert limitation in printed.err
    assert not Path(paths["monitoring_config_file"]).exists()


def test_batch_size_1_disables_batching(install, model, ports, tmp_path):
    install("tensorflow_model_server")
    with pytest.raises(OSError, match="exited with code 3"):
        serve_module.serve(model, ServeOptions(**ports, engine=BINARY, max_batch_size=1))
    assert not {"enable_batching", "batching_parameters_file"} & set(read_call(tmp_path)["flags"])


def test_docker_runs_the_pinned_image_with_the_same_paths_and_flags(
    install, model, ports, tmp_path, monkeypatch, capsys
):
    install("docker")
    monkeypatch.setenv("DOCKER_VERSION", "28.2.2")
    config = tmp_path / "models.config"
    text = f'name: "faces" base_path: "{model}" model_platform: "tensorflow"'
    config.write_text(f"model_config_list {{ config {{ {text} }} }} # mine\n", encoding="utf-8")
    with pytest.raises(OSError, match="docker .* exited with code 3"):
        serve_module.serve(options=ServeOptions(**ports), models_config=config)
    call = read_call(tmp_path)
    argv = call["argv"][1:]
    image = argv.index("tensorflow/serving:2.20.0")
    before, after = argv[:image], argv[image + 1 :]
    expected = ["run", "--rm", "--init", "--entrypoint", "tensorflow_model_server"]
    for port in (ports["port"], ports["grpc_port"]):
        expected += ["--publish", f"127.0.0.1:{port}:{port}"]
    files = call["flags"]
    mounted = [model, config, files["monitoring_config_file"], files["batching_parameters_file"]]
    for path in mounted:
        expected += ["--mount", f"type=bind,source={path},target={path},readonly"]
    assert sorted(before) == sorted(expected)
    assert before[:5] == expected[:5]
    assert f"--model_config_file={config}" in after
    assert call["files"]["model_config_file"] == config.read_text(encoding="utf-8")
    assert "all addresses" not in capsys.readouterr().err  # Docker listens on the given host only


@pytest.mark.parametrize(("takes", "call"), [("image_bytes", ":predict -d @-"), ("x", "/metadata")])
def test_an_example_call_is_printed_when_ready_and_signals_are_forwarded(
    install, model, ports, monkeypatch, tmp_path, takes, call
):
    install("tensorflow_model_server")
    monkeypatch.setenv("AFTER", "serve")
    monkeypatch.setenv("TAKES", takes)
    code = (
        "import sys; from jdfd_keras.serving import serve as serve_module\n"
        "from jdfd_keras.options import *\n"
        f"serve_module.serve({str(model)!r}, ServeOptions(port={ports['port']}, "
        f"grpc_port={ports['grpc_port']}, engine={BINARY!r}))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    start = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as run:
        line = run.stdout.readline()
        assert time.monotonic() - start > 0.3, "printed before the model was ready"
        url = f"http://127.0.0.1:{ports['port']}/v1/models/faces"
        assert line.rstrip().endswith(f"curl -s {url}{call}")
        run.send_signal(signal.SIGTERM)
        assert run.stdout.read() == ""  # the output of the child went to stderr
        *_, warning, ready = run.stderr.read().splitlines()
        assert warning.startswith("WARNING: OPEN TO ")
        assert ready.startswith("Ready: faces")
        assert run.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports["port"])).close()


def test_invalid_ports_for_tensorflow_serving_are_rejected(install, model, ports):
    install("tensorflow_model_server")
    named = {"engine": BINARY}
    with pytest.raises(ValueError, match="REST 0 and gRPC 8500"):
        serve_module.serve(model, ServeOptions(port=0, **named))
    with pytest.raises(ValueError, match="two different ports"):
        serve_module.serve(model, ServeOptions(port=8500, grpc_port=8500, **named))
    with socket.create_server(("127.0.0.1", ports["port"])), pytest.raises(OSError, match="in use"):
        serve_module.serve(model, ServeOptions(**ports, **named))


def test_serve_needs_either_a_model_or_a_models_config(model):
    with pytest.raises(ValueError, match="models_config; got None and None"):
        serve_module.serve()
    with pytest.raises(ValueError, match=f"models_config; got {model} and {model}"):
        serve_module.serve(model, models_config=model)
    with pytest.raises(ValueError, match="engine among auto.*torch"):
        serve_module.serve(model, ServeOptions(engine="torch"))
