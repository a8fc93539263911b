"""The recipes fix all options of a training but those of its data, and the command follows them."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from jdfd_keras import options
from jdfd_keras.cli.main import main, parse
from jdfd_keras.options import RECIPES, list_changes
from jdfd_keras.options.recipes import _OPEN

PAPER = {
    "model": {
        "method": "jdfd",
        "network": "xception",
        "latent_dim": 256,
        "decoder": True,
        "decoder_widths": (256, 128, 64, 32),
        "attention": "none",
        "encoder_weights": "imagenet",
        "dropout": 0.0,
        "batch_norm_momentum": 0.9,
    },
    "loss": {
        "classification_weight": 0.8,
        "reconstruction_weight": 0.2,
        "label_smoothing": 0.0,
    },
    "optimizer": {
        "optimizer": "sgd",
        "learning_rate": 0.005,
        "classifier_learning_rate": 0.0004,
        "momentum": 0.9,
        "decay_rate": 0.2,
        "decay_epochs": 5,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "accumulate": 1,
        "average": 0.0,
    },
    "train": {"epochs": 20, "batch_size": 4, "precision": "float32", "patience": 0},
    "pipeline": {
        "balance": False,
        "class_weights": False,
        "reconstruct": "all",
        "cache": False,
        "fakes": "none",
        "labelled_fakes": True,
        "val_fakes": "auto",
    },
    "augment": dict.fromkeys(
        ("flip", "jpeg", "h264", "blur", "scaling", "noise", "colour", "affine"), False
    ),
}
# Where the robust recipe differs from the paper's.
ROBUST = {
    "optimizer": {
        "optimizer": "adam",
        "learning_rate": 0.0002,
        "classifier_learning_rate": 0.0002,
        "decay_rate": 1.0,
    },
    "train": {"epochs": 10, "batch_size": 32, "precision": "mixed_bfloat16"},
    "pipeline": {"reconstruct": "clean", "fakes": "mixed"},
    "augment": dict.fromkeys(PAPER["augment"], True) | {"affine": False},
}


def fixed(name: str) -> dict[str, dict]:
    """Return the options that a recipe fixes."""
    groups = {group: dataclasses.asdict(values) for group, values in RECIPES[name].items()}
    return {
        group: {option: value for option, value in values.items() if option not in _OPEN}
        for group, values in groups.items()
    }


def test_the_recipes_have_exactly_these_settings():
    assert fixed("paper") == PAPER
    assert fixed("robust") == {group: PAPER[group] | ROBUST.get(group, {}) for group in PAPER}


@pytest.mark.parametrize("name", RECIPES)
def test_what_belongs_to_the_data_keeps_its_default(name):
    for values in RECIPES[name].values():
        defaults = type(values)()
        for option in set(_OPEN) - {"recipe"}:
            if hasattr(values, option):
                assert getattr(values, option) == getattr(defaults, option)
    assert RECIPES[name]["train"].recipe == name


def test_the_flag_offers_all_recipes():
    (field,) = (f for f in dataclasses.fields(options.TrainOptions) if f.name == "recipe")
    assert field.metadata["choices"] == tuple(RECIPES)


def test_changes_name_both_values_and_ignore_the_seed():
    recipe = RECIPES["paper"]
    assert list_changes("paper", recipe) == []
    groups = recipe | {
        "train": dataclasses.replace(recipe["train"], seed=7, batch_size=8),
        "augment": dataclasses.replace(recipe["augment"], flip=True),
        "unlabelled": options.UnlabelledOptions(),
    }
    assert list_changes("paper", groups) == ["batch_size 4 -> 8", "flip False -> True"]


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="paper, robust; got 'strong'"):
        list_changes("strong", {})


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Replace training, beside a folder `prepared`; the arguments that it got are in the list."""
    from jdfd_keras.training import train as module

    (tmp_path / "prepared").mkdir()
    monkeypatch.chdir(tmp_path)
    calls = []

    def train(data, out, **groups):
        calls.append(groups)
        return module.TrainedRun(out, 1, 1, 0.5, "labelled fakes")

    monkeypatch.setattr(module, "train", train)
    return calls


def test_the_command_follows_a_recipe_and_says_what_differs(trained, capsys):
    words = ["train", "prepared", "--out", "run", "--recipe", "robust"]
    assert main([*words, "--epochs", "3", "--no-noise", "--seed", "5"]) == 0
    (groups,) = trained
    recipe = RECIPES["robust"]
    assert groups["train"] == dataclasses.replace(recipe["train"], epochs=3, seed=5)
    assert groups["augment"] == dataclasses.replace(recipe["augment"], noise=False)
    for name in ("model", "optimizer", "loss", "pipeline"):
        assert groups[name] == recipe[name]
    assert groups["unlabelled"] == options.UnlabelledOptions()
    stated = "recipe robust, changed: epochs 10 -> 3, noise True -> False"
    assert stated in capsys.readouterr().err


def test_the_mark_of_a_demonstration_is_part_of_no_recipe(trained, capsys):
    words = ["train", "prepared", "--out", "run", "--demonstration"]
    assert main([*words, "--recipe", "robust"]) == main(words) == 0
    recipe = RECIPES["robust"]["train"]
    assert trained[0]["train"] == dataclasses.replace(recipe, demonstration=True)
    assert trained[1]["train"] == options.TrainOptions(demonstration=True)
    assert "recipe robust, changed: nothing" in capsys.readouterr().err


def test_without_a_recipe_nothing_is_said_of_one(trained, capsys):
    assert main(["train", "prepared", "--out", "run", "--format", "json"]) == 0
    assert trained[0]["train"] == options.TrainOptions()
    captured = capsys.readouterr()
    assert "recipe" not in captured.err
    assert json.loads(captured.out)["epochs"] == 1


def test_a_resumed_run_keeps_its_recipe(trained, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "run", "--recipe", "paper"])
    assert ended.value.code == 2
    assert "a run keeps its own" in capsys.readouterr().err
    assert trained == []


def test_the_commands_of_the_page_are_parsed():
    page = Path(__file__).parents[2] / "docs/recipes.md"
    lines = re.findall(r"jdfd-keras ((?:train|evaluate) [^`\n]+)", page.read_text("utf-8"))
    parsed = [parse(shlex.split(line)) for line in lines]
    assert {getattr(words, "TrainOptions.recipe", None) for words in parsed} == {None, *RECIPES}
