"""TensorFlow Serving's file of models: accepted and rejected as by TensorFlow Serving."""

from pathlib import Path

import pytest

from jdfd_keras.serving.model_config import ModelConfig, configure_directory, read_models_config

ONE = 'name: "faces" base_path: "/models/faces" model_platform: "tensorflow"'


def write(directory: Path, *models: str) -> Path:
    path = directory / "models.config"
    configs = "".join(f"  config {{ {model} }}\n" for model in models)
    path.write_text(f"model_config_list {{\n{configs}}}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ("", [7]),
        ("model_version_policy { latest {} }", [7]),
        ("model_version_policy { latest { num_versions: 2 } }", [7, 3]),
        ("model_version_policy { latest { num_versions: 9 } }", [7, 3, 2]),
        ("model_version_policy { all {} }", [7, 3, 2]),
        ("model_version_policy { specific { versions: 2 versions: 3 versions: 5 } }", [3, 2]),
    ],
)
def test_the_policy_selects_versions_newest_first(tmp_path, policy, chosen):
    (config,) = read_models_config(write(tmp_path, f"{ONE} {policy}"))
    assert (config.name, config.base_path) == ("faces", Path("/models/faces"))
    assert config.choose([3, 7, 2]) == chosen


def test_models_keep_the_order_of_the_file_and_their_labels(tmp_path):
    labelled = (
        'name: "z" base_path: "/m/z" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 9 }'
    )
    z, faces = read_models_config(write(tmp_path, labelled, ONE))
    # A label may name a version outside the policy: TensorFlow Serving allows it with
    # --allow_version_labels_for_unavailable_models.
    assert z == ModelConfig("z", Path("/m/z"), labels={"stable": 1, "canary": 9})
    assert faces == ModelConfig("faces", Path("/models/faces"))


def test_the_platform_can_be_given_as_model_type(tmp_path):
    old = 'name: "faces" base_path: "/models/faces" model_type: TENSORFLOW'
    assert [config.name for config in read_models_config(write(tmp_path, old))] == ["faces"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "got no model"),
        ([ONE, ONE], "got faces more than once"),
        ([ONE.replace("/models/", "")], "absolute path"),
        ([ONE.replace("/models/", "gs://bucket/")], "absolute path"),
        ([ONE.replace('"tensorflow"', '"pytorch"')], "got pytorch"),
        ([ONE.replace(' model_platform: "tensorflow"', "")], "got none"),
        ([ONE + " model_type: TENSORFLOW"], "got tensorflow and tensorflow"),
        ([ONE.replace('"faces"', '"a/b"')], "part of a URL; got 'a/b'"),
        ([ONE.replace('"faces"', '".."')], "part of a URL; got '..'"),
        ([ONE.replace('"faces"', '""')], "part of a URL; got ''"),
        ([ONE + " model_version_policy { specific {} }"], "list versions; got none"),
        ([ONE + " model_version_policy { specific { versions: -1 } }"], "0 or more"),
        ([ONE + ' version_labels { key: "a b" value: 1 }'], "got 'a b'"),
    ],
)
def test_a_config_that_tensorflow_serving_rejects_is_rejected(tmp_path, models, message):
    with pytest.raises(OSError, match=r"Expected .*models\.config") as refused:
        read_models_config(write(tmp_path, *models))
    assert message in str(refused.value)


def test_a_syntax_error_is_reported_with_its_line(tmp_path):
    path = write(tmp_path, ONE, ONE.replace("base_path", "base_paht"))
    with pytest.raises(OSError, match=r"3:26 : .*no field named \"base_paht\""):
        read_models_config(path)


def test_other_files_are_rejected(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        read_models_config(tmp_path / "nowhere.config")
    binary = tmp_path / "binary.config"
    binary.write_bytes(b"\xff\xfe\0")
    with pytest.raises(OSError, match="can't decode"):
        read_models_config(binary)
    custom = tmp_path / "custom.config"
    custom.write_text('custom_model_config { type_url: "x" }', encoding="utf-8")
    with pytest.raises(OSError, match="got no model"):
        read_models_config(custom)


def test_a_folder_is_served_under_its_name_with_its_newest_version(tmp_path):
    for version in ("2", "10"):
        (tmp_path / "faces" / version).mkdir(parents=True)
        (tmp_path / "faces" / version / "saved_model.pb").touch()
    config = configure_directory(tmp_path / "other" / ".." / "faces")
    assert config == ModelConfig("faces", tmp_path.resolve() / "faces")
    assert config.choose([2, 10]) == [10]
    with pytest.raises(OSError, match=f"{tmp_path} .*without a version"):
        configure_directory(tmp_path)
    (tmp_path / "faces").rename(tmp_path / "my faces")
    with pytest.raises(ValueError, match="got 'my faces'"):
        configure_directory(tmp_path / "my faces")
