"""Settings of the methods of Table 2, and the refusal of options that a method does not have."""

import dataclasses
from pathlib import Path

import pytest

from jdfd_keras import options
from jdfd_keras.cli.main import main
from jdfd_keras.options import METHOD_SETTINGS, METHODS, TRAINING_GROUPS, resolve_settings

# Settings that the sources state: optimizer, rate, epochs and faces per step.
STATED = {
    "xception": ("adam", 0.0002, 15, 32),
    "capsule": ("adam", 0.0005, 100, 100),
    "xception-regression": ("adam", 0.0001, 10, 30),
    "fwa": ("sgd", 0.001, 20, 64),
}
BASELINES = tuple(METHOD_SETTINGS)
NETWORK_OPTIONS = {"latent_dim": 8, "decoder_widths": (8,), "network": "meso4"}


def make_model(method: str, **values) -> options.ModelOptions:
    return options.ModelOptions(method=method, **values)


def test_every_method_but_ours_has_settings():
    assert ("jdfd", *BASELINES) == METHODS
    for method, settings in METHOD_SETTINGS.items():
        assert settings["model"] == make_model(method, decoder=False)
        assert set(settings) | {"unlabelled"} == set(TRAINING_GROUPS)


@pytest.mark.parametrize("method", STATED)
def test_the_settings_are_those_of_the_sources(method):
    settings = METHOD_SETTINGS[method]
    optimizer, train = settings["optimizer"], settings["train"]
    used = (optimizer.optimizer, optimizer.learning_rate, train.epochs, train.batch_size)
    assert used == STATED[method]
    assert settings["loss"].classification_weight == 1
    assert settings["augment"].colour == (method == "fwa")


def test_groups_that_are_not_given_are_those_of_the_method():
    own = options.TrainOptions(epochs=2)
    model = make_model("fwa", encoder_weights="none")
    groups = resolve_settings({"model": model, "train": own, "loss": None})
    expected = METHOD_SETTINGS["fwa"]
    assert groups["train"] == own
    assert groups["model"] == dataclasses.replace(model, decoder=False)
    for name in ("optimizer", "loss", "pipeline", "augment"):
        assert groups[name] == expected[name]
    assert groups["unlabelled"] == options.UnlabelledOptions()


def test_our_method_has_the_defaults():
    assert resolve_settings({}) == {name: kind() for name, kind in TRAINING_GROUPS.items()}


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("name", NETWORK_OPTIONS)
def test_an_option_that_a_method_does_not_have_is_refused(method, name):
    model = make_model(method, **{name: NETWORK_OPTIONS[name]})
    with pytest.raises(ValueError, match=f"that the method {method} has; got {name} ") as error:
        resolve_settings({"model": model})
    assert repr(NETWORK_OPTIONS[name]) in str(error.value)


@pytest.mark.parametrize(
    ("method", "group", "values"),
    [
        ("xception-triplet", options.ModelOptions, {"dropout": 0.1}),
        ("xception-regression", options.AugmentOptions, {"flip": True}),
        ("capsule", options.OptimizerOptions, {"classifier_learning_rate": 0.1}),
        ("fwa", options.UnlabelledOptions, {"unlabelled": ("other",)}),
        ("xception", options.TrainOptions, {"recipe": "robust"}),
        ("headpose", options.TrainOptions, {"epochs": 3}),
    ],
)
def test_options_of_other_groups_are_refused_too(method, group, values):
    (name,) = (name for name, kind in TRAINING_GROUPS.items() if kind is group)
    groups = {"model": make_model(method)}
    groups[name] = dataclasses.replace(groups.get(name) or group(), **values)
    with pytest.raises(ValueError, match=f"the method {method} has; got {next(iter(values))} "):
        resolve_settings(groups)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="jdfd, xception, .*; got 'vgg'"):
        resolve_settings({"model": make_model("vgg")})


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Replace training, beside a folder `prepared`; the arguments that it got are in the list."""
    from jdfd_keras.training import train as module

    (tmp_path / "prepared").mkdir()
    monkeypatch.chdir(tmp_path)
    calls = []

    def train(data, out, **groups):
        calls.append(groups)
        return module.TrainedRun(Path(out), 1, 1, 0.5, "labelled fakes")

    monkeypatch.setattr(module, "train", train)
    return calls


def test_the_command_starts_from_the_settings_of_the_method(trained):
    words = ["train", "prepared", "--out", "run", "--method", "xception-regression"]
    assert main([*words, "--epochs", "3", "--no-balance"]) == 0
    (groups,) = trained
    settings = METHOD_SETTINGS["xception-regression"]
    assert groups["train"] == dataclasses.replace(settings["train"], epochs=3)
    assert groups["pipeline"] == dataclasses.replace(settings["pipeline"], balance=False)
    for name in ("model", "optimizer", "loss", "augment"):
        assert groups[name] == settings[name]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--method", "vgg"], "argument --method: invalid choice: 'vgg'"),
        (["--method", "capsule", "--recipe", "robust"], "--recipe: not allowed with --method caps"),
        (["--method", "capsule", "--no-decoder"], "--decoder: not an option of --method capsule"),
        (["--method", "fwa", "--unlabelled", "x"], "--unlabelled: not an option of --method fwa"),
        (
            ["--method", "headpose", "--epochs", "2", "--strategy", "mirrored"],
            "--epochs, --strategy: not an option of --method headpose",
        ),
    ],
)
def test_the_command_refuses_what_does_not_suit_the_method(trained, capsys, words, problem):
    with pytest.raises(SystemExit) as ended:
        main(["train", "prepared", "--out", "run", *words])
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err
    assert trained == []


def test_a_resumed_run_keeps_its_method(trained, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "run", "--method", "capsule"])
    assert ended.value.code == 2
    assert "--method: not allowed with --resume" in capsys.readouterr().err


def test_a_resumed_run_refuses_what_its_method_does_not_have(trained, capsys):
    settings = {"unlabelled": options.UnlabelledOptions()} | METHOD_SETTINGS["capsule"]
    from jdfd_keras.io.files import init_folder

    init_folder("run", location=options.DataLocation("prepared"), **settings)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "run", "--decoder"])
    assert ended.value.code == 2
    assert "--decoder: not an option of --method capsule" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--checkpoint-steps", "5"]) == 0
    assert trained[0]["train"] == settings["train"]
