"""Verdicts of several models: each on its own crops and thresholds, whatever the others do."""

import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.signatures import find_model
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference import backends
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FaceOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
    ServeOptions,
)
from jdfd_keras.prediction import asked_models, predict, several_models
from jdfd_keras.prediction.opinions import NOT_COMBINED, Opinions, OpinionSource, same_weights
from jdfd_keras.prediction.several_models import predict_opinions
from tests.faces.signed_files import make_chain, sign_file

pytestmark = pytest.mark.slow

FACES = FaceOptions(face_size=71, frames_per_video=3, tracks="all")
THREE = PredictOptions(frames_per_video=3)
PLUGIN = """
from pathlib import Path

def score(path):
    with open("asked.txt", "a") as file:
        print(Path(path).name, file=file)
    return [0.25, 0.75]

score.version = "1.2"
score.thresholds = (0.25, 0.75)

def clean(path):
    return 0.125

def fails(path):
    return 1.2

def hangs(path):
    import time
    time.sleep(60)
"""


def redness(crops):
    return crops[..., 0].mean(axis=(1, 2)) / 255


def predictor_of(name, score=redness, faces=FACES, calibration=None, **others):
    metadata = ModelMetadata(faces, calibration, name, 1, f"weights of {name}")
    return Predictor(f"/models/{name}/1", metadata, score, None, **others)


def constant(value):
    return lambda crops: np.full(len(crops), value)


@pytest.fixture
def folder(clips_folder, tmp_path, monkeypatch):
    """The current folder, with two clips, an image without a face, a text, and plug-ins."""
    first, second = sorted(clips_folder.rglob("real/*.mp4"))[:2]
    shutil.copy(first, tmp_path / "a.mp4")
    shutil.copy(second, tmp_path / "b.mp4")
    cv2.imwrite(str(tmp_path / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "own.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def use(monkeypatch):
    """A function that sets predictors by the name of their model; other models are real ones."""

    def set_predictors(*predictors, **named):
        by_name = {predictor.metadata.name: predictor for predictor in predictors} | named

        def load(model, engine=None):
            return by_name.get(model) or backends.load_predictor(model, engine)

        monkeypatch.setattr(asked_models, "load_predictor", load)

    return set_predictors


@pytest.fixture
def extractions(monkeypatch):
    """The number of files and the face options of each extraction that is started."""
    started, extractor = [], several_models.Extractor

    def start(paths, faces, *others):
        started.append((len(paths), faces))
        return extractor(paths, faces, *others)

    monkeypatch.setattr(several_models, "Extractor", start)
    return started


def verdicts_of(opinions, path):
    (file,) = (file for file in opinions.files if file.path == path)
    return {opinion.label: opinion.verdict for opinion in file.opinions}


def test_two_models_and_a_plugin_judge_one_clip(exported, server, folder, capsys):
    """The models have the same weights, locally and over HTTP."""
    models = [str(exported), f"{server.url}/v1/models/tiny", "own:score"]
    options, engine = PredictOptions(frames_per_video=2), EngineOptions(backend="tensorflow")
    opinions = predict_opinions(["a.mp4"], models, options, engine=engine, explain=True)
    local, served, plugin = opinions.models
    assert [source.label for source in opinions.models] == ["tiny", "tiny-2", "own:score"]
    assert [source.kind for source in opinions.models] == ["model", "server", "plug-in"]
    assert local.digest == served.digest != "" and local.version == served.version == "1"
    assert local.engine.startswith("TensorFlow") and served.where.startswith(server.url)
    assert (plugin.version, plugin.uncertain_from, plugin.uncertain_to) == ("1.2", 0.25, 0.75)
    assert [source.is_calibrated for source in opinions.models] == [False, False, True]
    (file,) = opinions.files
    first, second, third = file.opinions
    alone = predict.predict_files(["a.mp4"], options, model=exported, engine=engine)
    assert (first.verdict, first.score) == (alone.files[0].verdict, alone.files[0].score)
    assert second.score == pytest.approx(first.score, abs=1e-6)
    assert (third.verdict, third.score) == ("fake", 0.75)
    verdicts = {first.verdict, second.verdict, third.verdict}
    assert file.agreement == ("agree" if verdicts == {"fake"} else "disagree")
    assert file.text.startswith("3 of 3 models have a verdict, and they ")
    assert opinions.note == (
        f"{NOT_COMBINED} tiny and tiny-2 have the same weights: together they are one opinion."
    )
    assert opinions.predictions[2] is None
    for known in opinions.predictions[:2]:
        assert known.top_faces["a.mp4"].cams is not None
    # The whole evidence is in the JSON, and comes back.
    values = json.loads(json.dumps(opinions.to_dict(), allow_nan=False))
    names = {"models", "files", "predictions", "skipped", "note", "case", "examiner"}
    assert set(values) == names
    assert set(values["files"][0]) == {"path", "opinions", "agreement", "text", "credentials"}
    assert values["files"][0]["credentials"] == values["predictions"][0]["files"][0]["credentials"]
    assert set(values["files"][0]["opinions"][0]) == {"label", "verdict", "score", "error", "code"}
    assert set(values["models"][0]) == {
        *("label", "kind", "where", "version", "digest", "engine", "is_calibrated"),
        *("uncertain_from", "uncertain_to", "error"),
    }
    assert values["predictions"][0]["files"][0]["score"] == first.score
    assert values["predictions"][2] is None
    assert Opinions.from_dict(values) == opinions
    assert "judging files with tiny, tiny-2: 1/1 files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "different",
    [
        {"margin": 1.6},
        pytest.param({"detector": "mtcnn"}, marks=pytest.mark.slow),
    ],
)
def test_each_model_gets_crops_of_its_own_and_equal_options_share_them(
    folder, use, extractions, different
):
    kinds = {
        "one": FACES,
        "two": dataclasses.replace(FACES, face_size=96),
        "three": FACES,
        "four": dataclasses.replace(FACES, **different),
    }
    seen = {name: [] for name in kinds}

    def record(name):
        def score(crops):
            seen[name].append(crops)
            return redness(crops)

        return score

    use(*(predictor_of(name, record(name), faces) for name, faces in kinds.items()))
    opinions = predict_opinions(["a.mp4"], list(kinds), THREE)
    assert extractions == [(1, kinds["one"]), (1, kinds["two"]), (1, kinds["four"])]
    crops = {}
    for index, (name, faces) in enumerate(kinds.items()):
        found = extract_faces(folder / "a.mp4", faces).faces
        crops[name] = np.stack([face.crop for face in found])
        np.testing.assert_array_equal(np.concatenate(seen[name]), crops[name])
        provenance = opinions.predictions[index].provenance
        assert provenance.faces == faces and provenance.where == f"/models/{name}/1"
        opinion = opinions.files[0].opinions[index]
        assert opinion.score == pytest.approx(redness(crops[name]).mean(), abs=1e-12)
    assert not np.array_equal(crops["one"], crops["four"])


def test_extraction_starts_while_models_are_loaded(folder, use, extractions, monkeypatch):
    guesses = {"one": None, "two": FACES, "three": dataclasses.replace(FACES, face_size=96)}
    monkeypatch.setattr(several_models, "guess_faces", lambda model, _: guesses[model])
    use(predictor_of("one"), predictor_of("two"))
    predict_opinions(["a.mp4", "none.mp4"], ["one", "two"], THREE)
    assert extractions == [(1, FACES)]
    extractions.clear()
    use(predictor_of("three"), predictor_of("two"))
    predict_opinions(["a.mp4"], ["three", "two"], THREE)  # a wrong guess
    assert extractions == [(1, guesses["three"]), (1, FACES)]


def test_each_verdict_is_by_the_thresholds_of_its_model(folder, use):
    use(
        predictor_of("strict", constant(0.6), calibration=Calibration(uncertain_to=0.9)),
        predictor_of("lax", constant(0.6)),
        predictor_of("low", constant(0.1)),
    )
    models = ["strict", "lax", "low", "own:score"]
    opinions = predict_opinions(["a.mp4", "sea.png"], models, THREE)
    assert verdicts_of(opinions, "a.mp4") == {
        "strict": "uncertain",
        "lax": "fake",
        "low": "no_evidence",
        "own:score": "fake",
    }
    clip, sea = opinions.files
    assert clip.agreement == "disagree" and not opinions.has_failures
    assert clip.text == (
        "4 of 4 models have a verdict, and they disagree: lax: fake; own:score: fake; strict: "
        "uncertain; low: no evidence of manipulation."
    )
    assert sea.agreement == "single" and verdicts_of(opinions, "sea.png")["lax"] == "no face"
    assert [source.is_calibrated for source in opinions.models] == [True, False, False, True]
    # A requested threshold is that of all.
    requested = predict_opinions(["a.mp4"], models, PredictOptions(0.7, 3))
    assert verdicts_of(requested, "a.mp4") == {
        "strict": "no_evidence",
        "lax": "no_evidence",
        "low": "no_evidence",
        "own:score": "fake",
    }
    assert {source.uncertain_to for source in requested.models} == {0.7}
    assert not any(source.is_calibrated for source in requested.models)


def test_a_model_that_cannot_be_loaded_costs_only_its_own_opinions(folder, use, capsys):
    cropped = dataclasses.replace(FACES, detector="none")
    use(predictor_of("good", constant(0.1)), predictor_of("crops", faces=cropped))
    url = "http://127.0.0.1:9/v1/models/gone"
    models = ["nowhere", "good", url, "absent:score", "crops", "own:clean"]
    opinions = predict_opinions(["a.mp4", "b.mp4"], models, THREE)
    labels = ["nowhere", "good", "gone", "absent:score", "crops", "own:clean"]
    assert [source.label for source in opinions.models] == labels
    errors = {source.label: source.error for source in opinions.models}
    assert [label for label in labels if errors[label]] == [labels[0], *labels[2:5]]
    assert "Expected a model: a path, or a name in" in errors["nowhere"]
    assert "Expected a server at http://127.0.0.1:9" in errors["gone"]
    assert "No module named 'absent'" in errors["absent:score"]
    assert "Expected a detector, since the model crops" in errors["crops"]
    for file in opinions.files:
        assert file.agreement == "agree" and "gone has none: Expected a server" in file.text
        for opinion in file.opinions:
            assert opinion.error == errors[opinion.label]
            assert opinion.code == ("model_unavailable" if opinion.error else "")
    assert [known is None for known in opinions.predictions] == [True, False, *[True] * 4]
    assert opinions.has_failures
    printed = capsys.readouterr().err
    for label in ("nowhere", "gone", "absent:score", "crops"):
        assert printed.count(f"{label}: Expected ") == 1
    assert Opinions.from_dict(json.loads(json.dumps(opinions.to_dict()))) == opinions


def test_without_any_model_there_is_one_error(folder, use, capsys):
    use()
    models = ["nowhere", "http://u:secret@127.0.0.1:9/v1/models/gone"]
    with pytest.raises(OSError, match="at least one model that can be loaded; got none") as caught:
        predict_opinions(["a.mp4"], models, THREE)
    assert "nowhere: Expected a model" in str(caught.value)
    assert "gone: Expected" in str(caught.value) and "secret" not in str(caught.value)
    assert main(["predict", "a.mp4", "--model", "nowhere", "--model", "own:absent"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("jdfd-keras predict: Expected at least one")
    assert main(["predict", "a.mp4", "--model", "own:absent"]) == 1
    assert "got own:absent, whose module" in capsys.readouterr().err


def test_a_server_that_is_gone_in_the_middle_costs_the_files_from_then_on(
    exported, folder, monkeypatch, capsys
):
    from jdfd_keras.serving.model_config import ModelConfig
    from jdfd_keras.serving.server.model_server import ModelServer

    config = ModelConfig("tiny", exported.parent)
    options, engine = ServeOptions(port=0, grpc_port=0), EngineOptions(backend="tensorflow")
    server = ModelServer([config], options, engine)
    scored = []

    def load(model, engine=None):
        predictor = backends.load_predictor(model, engine)

        def score(crops):
            if scored:
                server.__exit__()
            scored.append(len(crops))
            return predictor.score(crops)

        return dataclasses.replace(predictor, score=score) if "://" in str(model) else predictor

    monkeypatch.setattr(asked_models, "load_predictor", load)
    with server:
        models = [f"{server.url}/v1/models/tiny", str(exported), "own:clean"]
        options = PredictOptions(frames_per_video=2)
        out = folder / "out"
        opinions = predict_opinions(["a.mp4", "b.mp4"], models, options, engine=engine, out=out)
    assert len(scored) == 2  # it is not asked again
    first, second = opinions.files
    assert verdicts_of(opinions, "a.mp4")["tiny"] == verdicts_of(opinions, "a.mp4")["tiny-2"] != ""
    gone, local, plugin = second.opinions
    assert gone.code == "model_unavailable" and "Expected a server at http://127" in gone.error
    assert gone.verdict == "" and local.verdict != "" and plugin.verdict == "no_evidence"
    assert opinions.models[0].error == "" and opinions.has_failures
    served = opinions.predictions[0]
    assert [len(served.files), len(served.failed)] == [1, 1]
    assert capsys.readouterr().err.count("tiny: Expected a server at") == 1
    # Only the verdict is kept, so that a later run asks about the other file.
    lines = (out / "tiny" / "verdicts.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a.mp4"]


def test_a_model_that_is_gone_before_its_first_verdict_has_one_error(folder, use, capsys):
    def disconnect(crops):
        raise ConnectionError("no answer")

    use(predictor_of("gone", disconnect), predictor_of("good"))
    opinions = predict_opinions(["a.mp4", "b.mp4"], ["gone", "good"], THREE)
    assert opinions.models[0].error == "no answer" and opinions.predictions[0] is None
    assert [file.opinions[0].error for file in opinions.files] == ["no answer"] * 2
    assert [file.agreement for file in opinions.files] == ["single"] * 2
    assert "judging files with gone, good: 2/2 files" in capsys.readouterr().err
    # Without another model, no more faces are extracted.
    use(predictor_of("gone", disconnect))
    assert predict_opinions(["a.mp4", "b.mp4"], ["gone"], THREE).files[1].agreement == "none"
    assert "2/2 files" not in capsys.readouterr().err


def test_a_plugin_that_fails_costs_only_its_own_opinions(folder, use, capsys):
    use(predictor_of("good"))
    models = ["good", "own:fails", "own:hangs", "own:clean"]
    opinions = predict_opinions(["a.mp4"], models, THREE, limits=LimitOptions(max_seconds=4))
    (file,) = opinions.files
    good, fails, hangs, clean = file.opinions
    assert good.error == clean.error == "" and file.agreement == "agree"
    assert fails.error.startswith("Expected scores for a.mp4; got own:fails, which returned 1.2.")
    assert fails.code == "plugin_failed"
    assert "own:hangs, whose analysis took more than 4 s" in hangs.error
    assert hangs.code == "too_long"
    assert "own:fails: a.mp4: Expected scores" in capsys.readouterr().err


def test_invalid_scores_of_a_model_are_its_failure_alone(folder, use, capsys):
    use(predictor_of("bad", constant(np.nan)), predictor_of("good"))
    opinions = predict_opinions(["a.mp4"], ["bad", "good"], THREE)
    bad, good = opinions.files[0].opinions
    assert "scores from 0 to 1" in bad.error and good.verdict == "no_evidence"
    assert "bad: a.mp4: Expected 3 scores" in capsys.readouterr().err
    assert opinions.models[0].error == ""


def test_a_file_that_cannot_be_read_is_printed_once_and_has_no_verdict_of_a_model(
    folder, use, capsys
):
    other = dataclasses.replace(FACES, face_size=96)
    use(predictor_of("one"), predictor_of("two"), predictor_of("three", faces=other))
    models = ["one", "two", "three", "own:clean"]
    opinions = predict_opinions(["text.mp4", "none.mp4", "a.mp4"], models, THREE)
    text, missing, clip = opinions.files
    assert [opinion.code for opinion in text.opinions] == ["undecodable"] * 3 + [""]
    assert text.agreement == "single"
    assert [opinion.code for opinion in missing.opinions] == ["missing"] * 4
    assert clip.agreement == "agree"
    printed = capsys.readouterr().err
    assert printed.count("text.mp4: Expected a video") == 1
    assert printed.count("none.mp4: Expected a video") == 1
    with pytest.raises(FileNotFoundError, match="none.mp4, which is missing"):
        predict_opinions(["none.mp4"], models, THREE)


def test_a_run_with_a_folder_is_resumed_without_asking_again(folder, use, extractions):
    calls = []

    def score(crops):
        calls.append(len(crops))
        return redness(crops)

    use(predictor_of("one", score), predictor_of("two"))
    models, out = ["one", "two", "own:score"], folder / "out"
    paths = ["a.mp4", "b.mp4"]
    first = predict_opinions(paths, models, THREE, out=out)
    assert sorted(path.name for path in out.iterdir()) == [
        *("one", "opinions.json", "options.json", "own_score", "two"),
    ]
    stored = json.loads((out / "opinions.json").read_text())
    assert Opinions.from_dict(stored) == first
    with open(out / "one" / "verdicts.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == paths
    asked = folder / "asked.txt"
    assert sorted(asked.read_text().split()) == paths and len(calls) == 2
    extractions.clear()
    assert predict_opinions(paths, models, THREE, out=out).files == first.files
    assert len(calls) == 2 and extractions == []
    assert len(asked.read_text().split()) == 2
    # A changed file is analysed again, as is a file that one model has no verdict on.
    os.utime("b.mp4", ns=(1, 1))
    shutil.rmtree(out / "two")
    assert predict_opinions(paths, models, THREE, out=out).files == first.files
    assert len(calls) == 3 and extractions == [(2, FACES)]
    assert asked.read_text().split()[2:] == ["b.mp4"]
    # A model folder of other options costs that model; answers of a plug-in have no options.
    use(predictor_of("one", score, calibration=Calibration(uncertain_to=0.9)), predictor_of("two"))
    changed = predict_opinions(paths, models, THREE, out=out)
    assert "uncertain_to 0.5 -> 0.9" in changed.models[0].error
    assert [model.error for model in changed.models[1:]] == ["", ""]
    assert len(asked.read_text().split()) == 3


def test_a_folder_of_another_kind_is_refused(folder, use, monkeypatch):
    use(predictor_of("one"), predictor_of("two"))
    monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor_of("one"))
    predict.predict_files(["sea.png"], THREE, model="one", out="single")
    with pytest.raises(ValueError, match="a folder of another kind"):
        predict_opinions(["sea.png"], ["one", "two"], THREE, out="single")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="which holds other files"):
        predict_opinions(["sea.png"], ["one", "two"], THREE, out="mine")
    predict_opinions(["sea.png"], ["one", "two"], THREE, out="several")
    with pytest.raises(ValueError, match="a folder of another kind"):
        predict.predict_files(["sea.png"], THREE, model="one", out="several")


def test_names_of_models_are_labels_and_cannot_leave_the_folder(folder, use):
    use(
        a=predictor_of("../../up"),
        b=predictor_of("detector"),
        c=predictor_of("Detector"),
        d=predictor_of("opinions.json"),
        e=predictor_of("[red]\x1b[2J"),
        f=predictor_of(""),
    )
    opinions = predict_opinions(["sea.png"], list("abcdef"), THREE, out="out/deep/er")
    assert [source.label for source in opinions.models] == [
        *("../../up", "detector", "Detector-2", "opinions.json", "[red]\\x1b[2J", "f"),
    ]
    assert sorted(path.name for path in Path("out/deep/er").iterdir() if path.is_dir()) == [
        *("Detector-2", "_.._up", "_red__x1b_2J", "detector", "f", "opinions.json-2"),
    ]
    assert [path.name for path in folder.joinpath("out").iterdir()] == ["deep"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "Expected at least one model; got none"),
        ("jdfd-faces", r"list of models; got 'jdfd-faces'. Try \['jdfd-faces'\]"),
        (["a", "b", "a"], "Expected different models; got a 2 times"),
        ([Path("a"), "a"], "Expected different models"),
    ],
)
def test_an_impossible_list_of_models_is_refused(folder, use, models, message):
    use()
    with pytest.raises(ValueError, match=message):
        predict_opinions(["a.mp4"], models, THREE)


def test_plug_ins_of_one_module_are_not_taken_for_one_opinion():
    def source(label, kind):
        return OpinionSource(label, kind, label, digest="ab")

    assert same_weights([source("own:a", "plug-in"), source("own:b", "plug-in")]) == ""
    assert same_weights([source("a", "model"), source("own:b", "plug-in")]) == ""
    text = same_weights([source("a", "model"), source("own:c", "plug-in"), source("b", "server")])
    assert text == "a and b have the same weights: together they are one opinion."


def test_options_are_checked_as_for_one_model(folder, use, tmp_path):
    use()
    for options, runtime, limits in (
        (PredictOptions(every=-1), None, None),
        (PredictOptions(threshold=1.5), None, None),
        (None, PredictRuntime(workers=-1), None),
        (None, None, LimitOptions(max_seconds=-1)),
    ):
        with pytest.raises(ValueError, match="Expected .*; got"):
            predict_opinions(["a.mp4"], ["a", "b"], options, runtime, limits=limits)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="a folder for the verdicts"):
        predict_opinions(["a.mp4"], ["a", "b"], out="file")


def test_the_engine_is_that_of_local_models(folder, monkeypatch):
    asked = {}

    def load(model, engine=None):
        asked[model] = engine
        return predictor_of(model.rpartition("/")[2])

    monkeypatch.setattr(asked_models, "load_predictor", load)
    engine, url = EngineOptions(backend="tensorflow"), "http://h/v1/models/m"
    predict_opinions(["sea.png"], [url, "local"], THREE, engine=engine)
    assert asked == {url: None, "local": engine}
    predict_opinions(["sea.png"], [url], THREE, engine=engine)  # an error of `load_predictor`
    assert asked[url] == engine


def test_all_predictors_are_closed(folder, use):
    closed = []
    close = {name: (lambda name=name: closed.append(name)) for name in ("one", "two")}
    use(*(predictor_of(name, close=close[name]) for name in close))
    predict_opinions(["sea.png"], ["one", "nowhere", "two"], THREE)
    assert sorted(closed) == ["one", "two"]


def run_command(capsys, *words):
    code = main(["predict", *words, "--frames-per-video", "3"])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_prints_agreement_in_words(folder, use, capsys):
    use(predictor_of("one"), predictor_of("two", engine=Engine("openvino", "1", "float32")))
    words = ["a.mp4", "--model", "one", "--server", "http://127.0.0.1:9/v1/models/gone"]
    words += ["--model", "own:score"]
    code, out, _ = run_command(capsys, *words)
    assert code == 1  # a model failed, and the output is complete
    assert "2 of 3 models have a verdict, and they disagree" in out and NOT_COMBINED in out
    assert "gone has none: Expected a server" in out
    code, out, _ = run_command(capsys, "a.mp4", "--model", "own:score", "--format", "json")
    assert code == 0 and json.loads(out)["files"][0]["agreement"] == "single"
    code, out, _ = run_command(capsys, *words, "--format", "json")
    labels = [model["label"] for model in json.loads(out)["models"]]
    assert (code, labels) == (1, ["one", "gone", "own:score"])  # in the order of the command
    code, out, _ = run_command(capsys, "a.mp4", "--model", "one", "--model", "two")
    assert code == 0 and "and they agree: no evidence of manipulation" in out


def test_the_command_writes_a_table_with_a_row_for_each_file_and_model(folder, use, capsys):
    use(predictor_of("one", constant(0.123456789)))
    shutil.copy("a.mp4", "=1+1.mp4")
    words = ["=1+1.mp4", "sea.png", "--model", "one", "--model", "own:fails", "--format", "csv"]
    code, out, _ = run_command(capsys, *words)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1 and len(rows) == 4
    assert list(rows[0]) == [
        *("path", "label", "kind", "verdict", "score", "uncertain_from", "uncertain_to"),
        *("agreement", "error", "code", "credentials", "ai_claims", "note"),
    ]
    assert len({row["credentials"] for row in rows}) == 1  # of the file, whoever judged it
    cells = [(row["path"], row["label"], row["verdict"], row["score"]) for row in rows]
    assert cells == [
        ("./=1+1.mp4", "one", "no_evidence", "0.123457"),
        ("./=1+1.mp4", "own:fails", "", ""),
        ("sea.png", "one", "no face", ""),
        ("sea.png", "own:fails", "", ""),
    ]
    assert [row["agreement"] for row in rows] == ["single"] * 2 + ["none"] * 2
    assert rows[1]["code"] == "plugin_failed" and "which returned 1.2" in rows[1]["error"]
    assert rows[0]["uncertain_to"] == "0.5" and rows[1]["uncertain_to"] == ""


def test_the_command_writes_pages_with_the_case(folder, use, capsys):
    use(predictor_of("one"), predictor_of("two", constant(0.9)))
    words = ["a.mp4", "--model", "one", "--model", "two", "--model", "own:score"]
    words += ["--report", "page.html", "--case", "2026-17", "--examiner", "A. Ray"]
    code, out, _ = run_command(capsys, *words)
    assert code == 0 and "page.html" in out
    page = (folder / "page.html").read_text()
    assert "The models disagree" in page and "2026-17" in page and "A. Ray" in page
    code, _, error = run_command(capsys, *words)  # it exists
    assert code == 1 and "page.html, since results are not overwritten" in error
    assert run_command(capsys, *words, "--overwrite")[0] == 0


def test_the_command_refuses_what_it_cannot_do_before_a_model_is_loaded(folder, use, capsys):
    def fail(*_):
        raise AssertionError("a model was loaded")

    use(one=fail, two=fail)
    (folder / "two").mkdir()
    both = ["a.mp4", "--model", "one", "--model", "two"]
    for words, message in (
        ([*both, "--annotate", "b.mp4"], "Expected one model with --annotate"),
        ([*both, "--report", "two/page.html"], "which is inside the model two"),
        ([*both, "--report", "a.mp4"], "Expected a report named"),
        ([*both, "--model", "one"], "Expected different models; got one 2 times"),
        ([*both, "--server", "host:8500"], "URL of a served model; got 'host:8500'"),
        ([*both, "--trust-anchors", "none.pem"], "none.pem"),
    ):
        code, out, error = run_command(capsys, *words)
        assert (code, out) == (1, "") and message in error, error
    (folder / "page_files").mkdir()
    code, _, error = run_command(capsys, *both, "--report", "page.html")
    assert code == 1 and "page_files, since results are not overwritten" in error


def test_a_name_that_is_not_utf_8_can_be_written(folder, use, capsys):
    name = os.fsdecode(b"bad\xff.png")
    try:
        shutil.copy("sea.png", name)
    except OSError:
        pytest.skip("this file system refuses such a name")
    use(predictor_of("one"))
    opinions = predict_opinions([name, "a.mp4"], ["one", "own:clean"], THREE, out="out")
    json.dumps(opinions.to_dict(), ensure_ascii=False).encode()
    assert opinions.files[0].path == "bad\\udcff.png"
    assert "file name in UTF-8" in opinions.files[0].opinions[0].error
    assert opinions.files[0].opinions[1].verdict == "no_evidence"


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), MemoryError(), ValueError("no such layer")]
)
def test_an_exception_of_an_engine_costs_the_opinions_of_its_model_alone(
    folder, use, error, monkeypatch
):
    """In each of its steps: as it is loaded, as it scores, and as it explains."""

    def fails(*_):
        raise error

    local = {
        "loads": fails,
        "scores": lambda: predictor_of("scores", fails),
        "maps": lambda: dataclasses.replace(predictor_of("maps"), explain=fails),
        "good": lambda: predictor_of("good"),
    }
    for name in local:
        (folder / name).mkdir()
    monkeypatch.setattr(backends, "_load_local", lambda path, _: local[path.name]())
    opinions = predict_opinions(["a.mp4"], list(local), THREE, explain=True)
    [file] = opinions.files
    assert [opinion.verdict for opinion in file.opinions] == ["", "", *["no_evidence"] * 2]
    loads, scores = file.opinions[:2]
    assert (str(error) or "MemoryError") in loads.error
    assert (str(error) or "MemoryError") in scores.error
    if not isinstance(error, ValueError):
        assert loads.error.startswith("Expected a model that can be loaded from loads; got ")
        assert scores.error.startswith("Expected scores from scores; got ")
        assert (loads.code, scores.code) == ("model_unavailable",) * 2
    shown = opinions.predictions[2].top_faces["a.mp4"]
    assert shown.cams is None
    assert shown.failure.startswith("the model could not compute the maps (")


def test_an_error_of_tensorflow_is_one_of_the_model(folder, monkeypatch):
    tf = pytest.importorskip("tensorflow")

    def fails(crops):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    (folder / "big").mkdir()
    monkeypatch.setattr(backends, "_load_local", lambda *_: predictor_of("big", fails))
    opinions = predict_opinions(["a.mp4"], ["big", "own:clean"], THREE)
    big, clean = opinions.files[0].opinions
    assert "got 'ResourceExhaustedError: OOM when allocating'. Try again" in big.error
    assert clean.verdict == "no_evidence" and opinions.predictions[0] is None


def test_content_credentials_are_read_also_if_only_a_plug_in_has_a_verdict(folder, use, capsys):
    chain = make_chain()
    (folder / "authorities.pem").write_bytes(chain.authority)
    kind = "trainedAlgorithmicMedia"
    signed = sign_file(Path("a.mp4"), folder / "signed.mp4", chain, source_type=kind).name
    options = CredentialOptions("authorities.pem")
    clips = [signed, "b.mp4", "text.mp4"]
    alone = predict_opinions(clips, ["own:clean"], THREE, credentials=options)
    states = [file.credentials.state for file in alone.files]
    assert states[:2] == ["valid", "none"] and alone.files[2].credentials.ai_claims == ()
    # The same as with a model, and if that has failed.
    use(predictor_of("good"), predictor_of("bad", constant(np.nan)))
    for model in ("good", "bad"):
        models = [model, "own:clean"]
        both = predict_opinions([signed], models, THREE, credentials=options)
        assert both.files[0].credentials == alone.files[0].credentials
    [untrusted] = predict_opinions([signed], ["own:clean"], THREE).files
    assert untrusted.credentials.state == "untrusted"
    words = [signed, "--model", "own:clean", "--trust-anchors", "authorities.pem"]
    _, out, _ = run_command(capsys, *words, "--format", "csv", "--report", "page.html")
    [row] = csv.DictReader(io.StringIO(out))
    assert row["credentials"] == "valid" and "created by generative AI" in row["ai_claims"]
    page = Path("page.html").read_text()
    assert "AI made it" in page and "Valid, signed by Ada Photographer" in page
    _, out, _ = run_command(capsys, *words)
    assert "  AI claim: " in out and "  Content Credentials: valid, signed by Ada Photog" in out
    _, out, _ = run_command(capsys, *words, "--format", "json")
    assert json.loads(out)["files"][0]["credentials"]["state"] == "valid"


def test_models_of_one_name_keep_their_folders_in_any_order(folder, use):
    asked = []

    def scoring(name):
        def score(crops):
            asked.append(name)
            return redness(crops)

        return score

    def named(digest):
        predictor = predictor_of("detector", scoring(digest))
        metadata = dataclasses.replace(predictor.metadata, digest=digest)
        return dataclasses.replace(predictor, metadata=metadata)

    use(**{name: named(name) for name in "abc"})
    first = predict_opinions(["a.mp4"], ["a", "b"], THREE, out="out")
    assert asked == ["a", "b"] and not first.has_failures
    for models in (["b", "a"], ["b"], ["a"], ["b", "own:clean", "a"]):
        again = predict_opinions(["a.mp4"], models, THREE, out="out")
        assert not again.has_failures and asked == ["a", "b"]
    # A third one gets a folder of its own beside the first, and keeps it.
    for models in (["c", "a"], ["c", "b", "a"], ["c"]):
        assert not predict_opinions(["a.mp4"], models, THREE, out="out").has_failures
    assert asked == ["a", "b", "c"]
    folders = sorted(path.name for path in Path("out").iterdir() if path.is_dir())
    assert folders == ["detector", "detector-2", "detector-3", "own_clean"]
    # Changed weights of the only model of that name.
    predict_opinions(["a.mp4"], ["a"], THREE, out="other")
    [changed] = predict_opinions(["a.mp4"], ["b", "own:clean"], THREE, out="other").models[:1]
    assert "Expected the options that other/detector was made with" in changed.error
    assert "Choose another --out" in changed.error


def test_plug_ins_of_one_safe_name_keep_their_folders_in_any_order(folder):
    for name in ("a", "a_b"):
        (folder / f"{name}.py").write_text("def c(path): return 0.25\nb_c = c\n")
    for models in (["a:b_c", "a_b:c"], ["a_b:c", "a:b_c"], ["a_b:c"]):
        opinions = predict_opinions(["sea.png"], models, THREE, out="out")
        assert [file.error for file in opinions.models] == [""] * len(models)


def test_the_same_files_by_other_names_are_refused(folder, use):
    use()
    version = folder / "saved_models" / "tiny" / "1"
    version.mkdir(parents=True)
    for name in ("saved_model.pb", "alignment.json"):
        (version / name).write_text("")
    (folder / "run").mkdir()
    (folder / "run" / "best.keras").write_text("")
    (folder / "link").symlink_to("saved_models")
    spellings = ["saved_models/tiny", "saved_models/tiny/1", "./saved_models/tiny/", "link/tiny"]
    for other in [*spellings, str(version)]:
        with pytest.raises(ValueError, match="got tiny and .*, which are the same files. Together"):
            predict_opinions(["a.mp4"], ["tiny", other], THREE)
    with pytest.raises(ValueError, match="run and run/best.keras, which are the same files"):
        predict_opinions(["a.mp4"], ["run", "own:clean", "run/best.keras"], THREE)
    url = "http://u:secret@127.0.0.1:9/v1/models/m"
    with pytest.raises(ValueError, match="the same server and model") as caught:
        predict_opinions(["a.mp4"], [url, f"{url}/"], THREE)
    assert "secret" not in str(caught.value)


def test_what_is_in_the_way_in_a_result_folder_is_named(folder, use):
    use(predictor_of("one"), predictor_of("two"))
    models = ["one", "two"]
    predict_opinions(["sea.png"], models, THREE, out="out")
    shutil.rmtree("out/two")
    Path("out/two").write_text("mine")
    opinions = predict_opinions(["sea.png"], models, THREE, out="out")
    assert "a folder for the verdicts of a model, or none yet; got out/two, which is a file" in (
        opinions.models[1].error
    )
    Path("out/opinions.json").unlink()
    Path("out/opinions.json").mkdir()
    with pytest.raises(IsADirectoryError, match="Expected a file for the opinions, or none yet"):
        predict_opinions(["sea.png"], models, THREE, out="out")
    assert Path("out/one").is_dir()


def test_without_any_model_nothing_is_left_behind(folder, use):
    use()
    before = sorted(folder.iterdir())
    with pytest.raises(OSError, match="got none"):
        predict_opinions(["a.mp4"], ["nowhere", "own:absent"], THREE, out="out/deep")
    assert sorted(set(folder.iterdir()) - {folder / "__pycache__"}) == before
    (folder / "mine").mkdir()
    with pytest.raises(OSError, match="got none"):
        predict_opinions(["a.mp4"], ["nowhere", "own:absent"], THREE, out="mine")
    assert list((folder / "mine").iterdir()) == []


def test_one_plug_in_alone_is_not_called_one_of_several(folder, capsys):
    opinions = predict_opinions(["a.mp4"], ["own:clean"], THREE)
    assert opinions.files[0].text == "own:clean: no evidence of manipulation."
    assert opinions.note == ""
    failed = predict_opinions(["a.mp4"], ["own:fails"], THREE)
    assert failed.files[0].text.startswith("own:fails has no verdict: Expected scores for a.mp4")
    code, out, _ = run_command(capsys, "a.mp4", "--model", "own:clean")
    assert code == 0 and "of 1 model" not in out and NOT_COMBINED not in out


def test_a_long_error_of_a_model_is_whole_once(folder, use, monkeypatch):
    def fails(*_):
        raise OSError("Expected less; got " + "x" * 5000 + "END.")

    (folder / "bad").mkdir()
    monkeypatch.setattr(backends, "_load_local", fails)
    use(predictor_of("good"))
    opinions = predict_opinions(["a.mp4", "b.mp4"], ["bad", "good"], THREE)
    assert opinions.models[0].error.endswith("xEND.")
    for file in opinions.files:
        assert "bad has none: Expected less; got xxx" in file.text and len(file.text) < 450


def test_the_same_weights_are_in_the_note_and_the_table(folder, use, capsys):
    twin = predictor_of("two")
    metadata = dataclasses.replace(twin.metadata, digest="weights of one")
    use(
        predictor_of("one"), predictor_of("three"), two=dataclasses.replace(twin, metadata=metadata)
    )
    words = ["sea.png"]
    for name in ("one", "two", "three", "own:clean"):
        words += ["--model", name]
    _, out, _ = run_command(capsys, *words, "--format", "csv")
    text = "one and two have the same weights: together they are one opinion."
    assert [row["note"] for row in csv.DictReader(io.StringIO(out))] == [text, text, "", ""]
    _, out, _ = run_command(capsys, *words, "--format", "json")
    assert json.loads(out)["note"] == f"{NOT_COMBINED} {text}"
    _, out, _ = run_command(capsys, *words)
    assert out.count(text) == 1 and f"warning: {text}" in out


@pytest.mark.slow
def test_the_shipped_detector_and_a_plugin_judge_a_clip(folder, capsys):
    shutil.copytree(find_model(), folder / "copy")
    words = ["a.mp4", "b.mp4", "--model", "jdfd-faces", "--model", "copy", "--model", "own:score"]
    code, out, _ = run_command(capsys, *words, "--report", "page.html", "--out", "out")
    assert code == 0
    assert "jdfd-faces and jdfd-faces-2 have the same weights: together they are one" in out
    stored = Opinions.from_dict(json.loads((folder / "out" / "opinions.json").read_text()))
    for file in stored.files:
        first, second, plugin = file.opinions
        assert first.score == second.score and plugin.score == 0.75
