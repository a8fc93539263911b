"""The commands of the file service, `app` and `serve --files`: their options and secrets."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from jdfd_keras.cli.main import main, parse
from jdfd_keras.cli.parser import read_options
from jdfd_keras.io.origin import describe_origin, mask_secrets, recorded_command
from jdfd_keras.options import SERVICE_LIMITS, FileServiceOptions, LimitOptions, ServeOptions

TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """Without the variables of the shell that runs the tests."""
    for name in ("JDFD_KERAS_TOKEN", "JDFD_KERAS_CALLBACK_SECRET"):
        monkeypatch.delenv(name, raising=False)


def options_of(*words):
    return read_options(parse(["app", *words]), FileServiceOptions)


def test_a_token_is_given_as_text_in_a_file_or_in_a_variable(tmp_path, monkeypatch):
    assert options_of().token == ""
    assert options_of("--token", TOKEN).token == TOKEN
    (tmp_path / "token.txt").write_text(f"{TOKEN}\n")
    assert options_of(f"--token=@{tmp_path / 'token.txt'}").token == TOKEN
    monkeypatch.setenv("JDFD_KERAS_TOKEN", TOKEN)
    assert options_of().token == TOKEN
    assert options_of("--token", "another-horse-battery").token == "another-horse-battery"
    monkeypatch.setenv("JDFD_KERAS_CALLBACK_SECRET", f"@{tmp_path / 'token.txt'}")
    assert options_of().callback_secret == TOKEN


@pytest.mark.parametrize("token", ["short", "with a space in it", "ümlaut-in-the-token"])
def test_a_weak_token_is_refused_and_not_repeated(token, capfd):
    assert main(["app", "--token", token]) == 1
    error = capfd.readouterr().err
    assert "Expected a --token of 16 or more printable ASCII characters" in error
    assert token not in error


@pytest.mark.parametrize(
    "words",
    [
        ["--max-jobs", "0"],
        ["--workers", "-1"],
        ["--max-upload-mb", "0"],
        ["--keep-hours", "-1"],
        ["--keep-hours", "inf"],
        ["--keep-hours", "nan"],
        ["--callback-hosts", "example.org"],
        ["--token", "@missing.txt"],
        ["--root", "missing-folder"],
    ],
)
@pytest.mark.parametrize("command", ["app", "serve"])
def test_a_wrong_option_is_one_clear_line(command, words, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ["--no-open"] if command == "app" else ["model", "--files", "--engine", "embedded"]
    assert main([command, *model, *words]) == 1
    error = capfd.readouterr().err.strip().splitlines()
    assert error[-1].startswith(f"jdfd-keras {command}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["app"], ["serve", "model", "--files"], ["serve", "model", "--files", "--port", "0"]]
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "server.example"])
def test_other_machines_need_a_token(words, host, capfd, tmp_path, monkeypatch):
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--host", host]) == 1
    error = capfd.readouterr().err
    assert re.search(rf"Expected a --token with --host {re.escape(host)}, .*; got none. Try", error)


@pytest.mark.parametrize("engine", ["docker", "tensorflow-model-server"])
def test_tensorflow_serving_serves_no_files(engine, capfd, tmp_path):
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").touch()
    assert main(["serve", str(tmp_path / "model"), "--files", "--engine", engine]) == 1
    assert "Expected --engine embedded with --files" in capfd.readouterr().err


def test_files_are_served_for_a_single_model(capfd, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
    config = tmp_path / "models.config"
    models = [
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}'
        for name in ("a", "b")
    ]
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    assert main(["serve", "--models-config", str(config), "--files"]) == 1
    assert "Expected a single model with --files; got 2" in capfd.readouterr().err


def test_a_video_has_at_most_an_hour_unless_another_limit_is_given():
    def limit(*words):
        return read_options(parse(["app", *words]), LimitOptions, SERVICE_LIMITS).max_duration_s

    assert (limit(), limit("--max-duration-s", "0")) == (3600, 0)


@pytest.mark.parametrize(
    "words",
    [
        ["app", "--token", TOKEN, "--callback-secret", TOKEN],
        ["app", f"--token={TOKEN}", f"--callback-secret={TOKEN}"],
        ["app", "--token", "--port", "--token", TOKEN],
    ],
)
def test_a_recorded_command_has_no_secrets(words):
    with recorded_command([*words, "--port", "0"]):
        command = describe_origin()["command"]
    assert TOKEN not in command
    assert command.endswith("--port 0")
    assert "***" in command


def test_other_words_are_recorded_as_they_are():
    words = ["predict", "--tokens", "a", "b --token c", "--token"]
    assert mask_secrets(words) == words


def test_a_secret_of_a_command_without_one_is_not_printed(capsys):
    with pytest.raises(SystemExit):
        parse(["predict", "clip.mp4", f"--token={TOKEN}"])
    error = capsys.readouterr().err
    assert "unrecognized arguments: --token=***" in error
    assert TOKEN not in error


def test_secrets_are_not_in_the_text_of_options():
    options = FileServiceOptions(token=TOKEN, callback_secret=TOKEN)
    assert TOKEN not in f"{options} {options!r}"


def test_the_app_has_the_flags_of_its_address_only():
    words = ["app", "--host", "127.0.0.1", "--port", "0"]
    assert read_options(parse(words), ServeOptions).port == 0
    for flag in ("--grpc-port", "--max-batch-size"):
        with pytest.raises(SystemExit):
            parse(["app", flag, "1"])


def test_models_and_trust_anchors_reach_the_service(monkeypatch):
    given = {}
    monkeypatch.setattr("jdfd_keras.serving.app.serve_app", lambda **options: given.update(options))
    monkeypatch.setattr(
        "jdfd_keras.serving.serve.serve", lambda model, *_, **options: given.update(options)
    )
    assert main(["app"]) == 0
    assert (given["models"], given["credentials"].trust_anchors) == ((), "")
    assert main(["app", "--model", "a", "--model", "b:c", "--trust-anchors", "a.pem"]) == 0
    assert (given["models"], given["credentials"].trust_anchors) == (["a", "b:c"], "a.pem")
    words = ["serve", "a", "--files", "--opinion", "http://h/v1/models/b", "--opinion", "c"]
    assert main([*words, "--trust-anchors", "b.pem"]) == 0
    assert given["opinions"] == ["http://h/v1/models/b", "c"]
    assert given["credentials"].trust_anchors == "b.pem"


def test_an_opinion_needs_the_file_service(capfd):
    assert main(["serve", "model", "--opinion", "b"]) == 1
    assert "Expected --files with --opinion; got --opinion b" in capfd.readouterr().err


def test_several_models_need_a_token_too(capfd):
    assert main(["app", "--model", "a", "--model", "b", "--host", "0.0.0.0"]) == 1
    assert "Expected a --token" in capfd.readouterr().err


@pytest.mark.slow
def test_the_app_runs_until_it_is_stopped(tmp_path):
    """With the shipped detector, in a process of its own that imports no TensorFlow."""
    words = ["app", "--port", "0", "--no-open", "--state", str(tmp_path / "state")]
    code = (
        "import sys; from jdfd_keras.cli.main import main; code = main(); "
        "sys.exit(code or 10 * ('tensorflow' in sys.modules))"
    )
    environment = os.environ | {"JDFD_KERAS_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url), process.communicate()
            with urllib.request.urlopen(f"{url}login") as page:
                assert page.status == 200
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}v1/files")
            assert refused.value.code == 401
            request = urllib.request.Request(
                f"{url}v1/files", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer) == {"files": [], "total": 0}
            second = subprocess.run(
                [sys.executable, "-m", "jdfd_keras", *words],
                capture_output=True,
                text=True,
                env=environment,
            )
            assert second.returncode == 1  # the same state
            port = url.rsplit(":", 1)[1].strip("/")
            words[2], words[5] = port, str(tmp_path / "other")
            third = subprocess.run(
                [sys.executable, "-m", "jdfd_keras", *words],
                capture_output=True,
                text=True,
                env=environment,
            )
            assert third.returncode == 1
            assert "Try --port 0 for a free one" in third.stderr
        finally:
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert out.strip() == "stopped"
    assert re.search(r"Files and results are kept in \S*state for 7 days", error)
    assert TOKEN not in out + error
