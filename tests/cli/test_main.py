import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras import options
from jdfd_keras.cli.main import COMMANDS, main, parse
from jdfd_keras.cli.parser import Output, read_options
from jdfd_keras.io.processor import has_bfloat16
from jdfd_keras.options import EvaluateOptions, ModelOptions, PipelineOptions, UnlabelledOptions


def test_help_answers_at_once_and_imports_nothing_heavy():
    code = (
        "import sys, time; begun = time.perf_counter()\n"
        "from jdfd_keras.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'pyarrow', 'scipy', 'cv2', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), time.perf_counter() - begun)"
    )
    words = [sys.executable, "-c", code, "train", "--help"]
    answers = [subprocess.run(words, capture_output=True, text=True).stdout for _ in range(3)]
    last_lines = [answer.splitlines()[-1].rsplit(" ", 1) for answer in answers]
    assert answers[0].startswith("usage: jdfd-keras train")
    assert [heavy for heavy, _ in last_lines] == ["[]"] * 3
    assert min(float(seconds) for _, seconds in last_lines) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_common_options_and_help_all_shows_the_rest(command, capsys):
    def flags(word: str) -> set[str]:
        with pytest.raises(SystemExit) as exit:
            main([command, word])
        assert exit.value.code == 0
        usage, *sections = capsys.readouterr().out.split("\n\n")
        listed = re.findall(r"^  (?:-h, )?(--[a-z][a-z-]+)", "\n\n".join(sections), flags=re.M)
        assert set(listed) - {"--help"} <= set(re.findall(r"--[a-z][a-z-]+", usage))
        return set(listed)

    common, everything = flags("--help"), flags("--help-all")
    assert common <= everything
    assert len(common) <= 20, "help of ten or so options, beside --help, --help-all and --format"
    assert ("--batch-norm-momentum" in everything) == (command in ("train", "experiment"))
    assert "--batch-norm-momentum" not in common


def test_a_flag_that_two_groups_have_is_of_the_first():
    words = ["experiment", "ablation", "--data", "ff=x", "--out", "y", "--batch-size", "9"]
    assert read_options(parse(words), options.TrainOptions).batch_size == 9
    assert read_options(parse(words), EvaluateOptions) == EvaluateOptions()


def commands_in(text: str) -> list[str]:
    text = text.replace("\\\n", " ")
    return re.findall(r"^ *(jdfd-keras .+?)(?: &)?$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "line", [line for c in COMMANDS.values() for line in commands_in(c.run.__doc__)]
)
def test_examples_in_the_help_are_parsed(line):
    assert parse(shlex.split(line)[1:]).command in COMMANDS


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such-command"],
        ["prepare"],
        ["prepare", "videos"],
        ["prepare", "videos", "root", "--out", "x"],
        ["prepare", "folder", "videos", "--out", "x", "--detector", "guess"],
        ["prepare", "folder", "videos", "--out", "x", "--temp_location", "y"],
        ["prepare", "folder", "videos", "--out", "x", "--frames", "3"],
        ["prepare", "folder", "videos", "--out", "x", "--layout", "dfdc"],
        ["audit"],
        ["train"],
        ["train", "prepared"],
        ["train", "--out", "x"],
        ["train", "--resume", "run", "--out", "x"],
        ["train", "prepared", "--resume", "run", "--out", "x"],
        ["train", "prepared", "--out", "x", "--epochs", "many"],
        ["train", "prepared", "--out", "x", "--decoder-widths", "a"],
        ["train", "prepared", "--out", "x", "--decoder-widths", "64,"],
        ["train", "prepared", "--out", "x", "--reconstruct", "fake"],
        ["evaluate", "--out", "x"],
        ["evaluate", "run", "--out", "x"],
        ["evaluate", "run", "a", "--out", "x", "--nonsense"],
        ["evaluate-scores", "--out", "x"],
        ["evaluate-scores", "scores.csv"],
        ["experiment", "ablation", "--data", "ff=x", "ff=y", "--out", "x"],
        ["experiment", "ablation", "--data", "ff=x", "--out", "x", "--quick"],
        ["experiment", "ablation", "--data", "ff=x", "--out", "x", "--model", "run"],
        ["experiment", "robustness", "--data", "ff=x", "--out", "x"],
        [
            "experiment",
            "robustness",
            "--data",
            "ff=x",
            "--out",
            "x",
            "--model",
            "m",
            "--seeds",
            "1",
        ],
        ["experiment", "robustness", "--data", "ff=x", "--out", "x", "--model", "m", "--h264"],
        ["predict", "clip.mp4", "--model"],
        ["serve"],
        ["serve", "saved_models/m", "--models-config", "models.config"],
        ["serve", "saved_models/m", "--engine", "torchserve"],
        ["export", "run", "--name", "m", "--formats", "float64"],
    ],
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    command = words[0] if words and words[0] in COMMANDS else ""
    assert capsys.readouterr().err.startswith(f"usage: jdfd-keras {command}")


@pytest.mark.parametrize(
    "words",
    [
        ["experiment", "ablation", "--data", "ff=x", "--out", "x", "--seeds", "1,a"],
        ["train", "x", "--out", "x", "--decoder-widths", "1,a"],
    ],
)
def test_a_list_with_a_word_in_it_is_refused_by_what_every_list_is(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(f"{words[-2]}: .*numbers .*0,1,2; got '1,a'", capsys.readouterr().err)


def test_widths_of_the_decoder_are_numbers_in_their_order():
    words = ["train", "prepared", "--out", "run"]
    for text, widths in {"64,32": (64, 32), "8": (8,)}.items():
        given = parse([*words, "--decoder-widths", text])
        assert read_options(given, ModelOptions).decoder_widths == widths
    assert read_options(parse(words), ModelOptions) == ModelOptions()


def test_several_unlabelled_data_sets_are_given_one_by_one():
    words = ["train", "prepared", "--out", "run"]
    both = parse([*words, "--unlabelled", "a", "--unlabelled", "b", "--unlabelled-share", "0.1"])
    assert read_options(both, UnlabelledOptions) == UnlabelledOptions(("a", "b"), 0.1)
    assert read_options(parse(words), UnlabelledOptions) == UnlabelledOptions()


def test_a_class_weight_is_asked_for_by_a_flag_and_left_out_by_another():
    words = ["train", "prepared", "--out", "run"]
    assert read_options(parse([*words, "--class-weights"]), PipelineOptions).class_weights
    assert not read_options(parse([*words, "--no-class-weights"]), PipelineOptions).class_weights
    assert not read_options(parse([*words, "--no-decoder"]), ModelOptions).decoder


@pytest.fixture(scope="module")
def model_file(tiny_detector, tmp_path_factory):
    """The tiny detector as a .keras file."""
    path = tmp_path_factory.mktemp("cli") / "tiny.keras"
    tiny_detector.save(path)
    return path


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def noise() -> np.ndarray:
    """An image without a face."""
    return np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, clips_folder):
    """Files that have no verdict, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad files")
    whole = next((clips_folder / "real").glob("*.mp4")).read_bytes()
    (folder / "notes.mp4").write_text("These are my notes on the case.\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return {
        "is missing": folder / "missing.mp4",
        "which is neither": folder / "notes.mp4",
        "(0 bytes)": folder / "empty.mp4",
        "cut short": folder / "cut.mp4",
    }


def assert_one_line(text: str, command: str, *parts: str) -> None:
    """An error is one line for a person: no traceback, no words of TensorFlow or FFmpeg."""
    assert re.fullmatch(rf"jdfd-keras {command}: Expected [^\n]+; got [^\n]+\.\n", text), text
    for part in parts:
        assert part in text


@pytest.mark.slow
def test_files_without_a_verdict_are_named_and_the_others_keep_theirs(
    model_file, bad_files, clips_folder, tmp_path, capfd
):
    good = next((clips_folder / "fake").glob("*.mp4"))
    wall = write_video(tmp_path / "wall.mp4", [noise()] * 3)
    paths = [good, wall, *bad_files.values()]
    code = main(["predict", *map(str, paths), "--model", str(model_file), "--format", "json"])
    assert code == 1
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert [verdict["path"] for verdict in result["files"]] == [str(good), str(wall)]
    assert (result["files"][1]["verdict"], result["files"][1]["score"]) == ("no face", None)
    assert result["files"][0]["score"] == pytest.approx(
        np.mean([face["score"] for face in result["files"][0]["faces"]])
    )
    assert [failure["path"] for failure in result["failed"]] == [
        str(path) for path in bad_files.values()
    ]
    *lines, progress = printed.err.splitlines()
    assert progress.startswith("judging files: 5/5 files")
    assert len(lines) == len(bad_files)
    for line, (reason, path) in zip(lines, bad_files.items(), strict=True):
        assert line.startswith(f"{path}: Expected")
        assert reason in line


def test_wrong_model_path_is_one_clear_line(tmp_path, prepared_set, clips_folder, capfd):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    nowhere = tmp_path / "nowhere"
    calls = {
        "predict": [str(clip), "--model", str(nowhere)],
        "evaluate": [str(nowhere), str(prepared_set), "--out", str(tmp_path / "report")],
        "export": [str(nowhere), "--name", "m", "--saved-models", str(tmp_path / "models")],
        "serve": [str(nowhere)],
    }
    for command, words in calls.items():
        assert main([command, *words]) == 1
        printed = capfd.readouterr()
        assert printed.out == ""
        assert_one_line(printed.err, command, str(nowhere))
    assert list(tmp_path.iterdir()) == []


def test_wrong_model_name_is_one_clear_line_with_the_names(
    tmp_path, clips_folder, capfd, monkeypatch
):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    (tmp_path / "saved_models" / "mine" / "1").mkdir(parents=True)
    (tmp_path / "saved_models" / "mine" / "1" / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    for command in (["predict", str(clip), "--model", "mien"], ["serve", "mien"]):
        assert main(command) == 1
        parts = ("a name in saved_models", "got 'mien'", "The names there: ", "mine")
        assert_one_line(capfd.readouterr().err, command[0], *parts)


def test_bad_data_set_is_one_clear_line(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    for name in ("real", "fake"):
        (tmp_path / "no videos" / name).mkdir(parents=True)
    for root, reason in {
        "nowhere": "which is missing",
        "empty": "real/, fake/, train/real/, train/fake/; got an empty folder",
        "no videos": "real/, fake/, train/real/, train/fake/; got an empty folder",
    }.items():
        out = tmp_path / "out"
        assert main(["prepare", "folder", str(tmp_path / root), "--out", str(out)]) == 1
        assert_one_line(capfd.readouterr().err, "prepare", reason)
        assert not out.exists()


def test_training_on_what_is_no_data_set_is_one_clear_line(tmp_path, capfd):
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    error = capfd.readouterr().err
    assert_one_line(
        error.splitlines(keepends=True)[-1], "train", "got no videos.parquet", "prepare"
    )


@pytest.fixture(scope="module")
def done_run(prepared_set, tmp_path_factory):
    """A run of two epochs, by the command itself, of a detector of two weights."""

    def build(options):
        import keras

        image = keras.Input((options.image_size, options.image_size, 3), name="image")
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
        score = keras.layers.Dense(1, "sigmoid", name="classification")(x)
        return keras.Model(image, {"classification": score})

    run = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.train.build_detector", build)
        words = ["train", str(prepared_set), "--out", str(run), "--no-decoder"]
        words += ["--batch-size", "16", "--epochs", "2", "--decoder-widths", "9,5"]
        words += ["--learning-rate", "0.007", "--flip", "--class-weights"]
        assert main(words) == 0
    return run


def content_of(folder: Path) -> dict:
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def test_resuming_a_run_that_is_done_prints_it_and_changes_nothing(done_run, capfd):
    before = content_of(done_run)
    assert main(["train", "--resume", str(done_run), "--format", "json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["directory"] == str(done_run)
    assert result["epochs"] == 2
    assert result["best_epoch"] in (1, 2)
    assert main(["train", "--resume", str(done_run)]) == 0
    assert capfd.readouterr().out == (
        f"best epoch {result['best_epoch']} of 2, validation frame AUC "
        f"{result['validation_frame_auc']:.3f} on labelled fakes\nrun: {done_run}\n"
    )
    assert content_of(done_run) == before


def test_a_resumed_run_keeps_its_options(done_run, prepared_set, monkeypatch):
    called = {}

    def train(data, out, **groups):
        called.update(groups, data=data, out=out)
        raise OSError("seen enough")

    monkeypatch.setattr("jdfd_keras.training.train.train", train)
    assert main(["train", "--resume", str(done_run), "--checkpoint-steps", "7"]) == 1
    precision = "mixed_bfloat16" if has_bfloat16() else "float32"  # the stored one
    assert called == {
        "data": prepared_set.resolve(),
        "out": done_run,
        "model": ModelOptions(image_size=71, decoder=False, decoder_widths=(9, 5)),
        "optimizer": options.OptimizerOptions(learning_rate=0.007),
        "loss": options.LossOptions(),
        "train": options.TrainOptions(epochs=2, batch_size=16, precision=precision),
        "unlabelled": UnlabelledOptions(),
        "pipeline": PipelineOptions(class_weights=True),
        "augment": options.AugmentOptions(flip=True),
        "runtime": options.TrainRuntime(checkpoint_steps=7),
    }


@pytest.mark.slow
def test_a_run_with_unlabelled_faces_is_resumed_from_another_folder(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    import shutil

    shutil.copytree(prepared_set, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    words = ["train", str(prepared_set), "--out", "run", "--unlabelled", "other"]
    assert main([*words, "--epochs", "1", "--batch-size", "64"]) == 0
    monkeypatch.chdir(tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0


def assert_train_refused(words: list[str], capfd, *parts: str) -> None:
    """One line to stderr, after the one that says what it would run on."""
    capfd.readouterr()
    assert main(["train", *words]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    *before, line = printed.err.splitlines(keepends=True)
    assert all(other.startswith("TensorFlow ") for other in before)
    assert_one_line(line, "train", *parts)


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--batch-size", "3"], "batch_size 16 -> 3"),
        (["--no-flip", "--seed", "4"], "seed 0 -> 4"),
        (["--decoder-widths", "5,9"], "decoder_widths [9, 5] -> [5, 9]"),
    ],
)
def test_resuming_with_another_option_names_what_differs(done_run, capfd, words, difference):
    before = content_of(done_run)
    parts = (f"the options that {done_run} was made with", difference)
    assert_train_refused(["--resume", str(done_run), *words], capfd, *parts)
    assert content_of(done_run) == before


def test_resuming_with_another_data_set_names_what_differs(
    done_run, prepared_set, change_table, tmp_path, capfd
):
    import shutil

    from jdfd_keras.datasets.manifest import FaceRow, read_faces

    moved = tmp_path / "renamed"
    shutil.copytree(prepared_set, moved)
    assert main(["train", str(moved), "--resume", str(done_run)]) == 0, "it only lies elsewhere"
    first = next(iter(read_faces(moved, split="train", columns=["video_id"])["video_id"])).as_py()

    def remove_its_first_face(rows):
        removed = next(index for index, row in enumerate(rows) if row.video_id == first)
        return rows[:removed] + rows[removed + 1 :]

    change_table(moved, FaceRow, remove_its_first_face)
    words = [str(moved), "--resume", str(done_run)]
    assert_train_refused(words, capfd, "digest", "train_faces 34 -> 33")


def test_resuming_what_is_no_run_is_one_clear_line(tmp_path, prepared_set, capfd):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        parts = (f"a run folder to resume; got {folder}", "has no options.json", "--out DIR")
        assert_train_refused(["--resume", str(folder)], capfd, *parts)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    # A dataset has options as well, but those of no training.
    before = content_of(prepared_set)
    assert_train_refused(["--resume", str(prepared_set)], capfd, "to hold the group 'location'")
    assert content_of(prepared_set) == before


@pytest.mark.parametrize("group", ["location", "augment"])
def test_resuming_a_run_with_options_that_are_unknown_is_refused(done_run, tmp_path, capfd, group):
    import shutil

    shutil.copytree(done_run, tmp_path / "run")
    path = tmp_path / "run" / "options.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored[group]["warmth"] = 3
    path.write_text(json.dumps(stored), encoding="utf-8")
    parts = (f"{path} to hold the group '{group}'", "'warmth'")
    assert_train_refused(["--resume", str(tmp_path / "run")], capfd, *parts)


@pytest.mark.parametrize("text", ["{", '{"location": null}'])
def test_resuming_a_run_with_damaged_options_is_refused(tmp_path, capfd, text):
    (tmp_path / "options.json").write_text(text)
    assert_train_refused(["--resume", str(tmp_path)], capfd, str(tmp_path / "options.json"))


def test_threshold_in_per_cent_is_refused(model_file, clips_folder, capfd):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    assert main(["predict", str(clip), "--model", str(model_file), "--threshold", "50"]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "threshold in 0..1; got 50.0" in printed.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "a", "b", "--out", "o"], ["a", "b"]),
        (["run", "--out", "o", "a", "b"], ["a", "b"]),
        (["--out", "o", "run", "a"], ["a"]),
    ],
)
def test_evaluate_takes_a_run_and_datasets_before_or_after_flags(words, expected):
    arguments = parse(["evaluate", *words])
    assert (str(arguments.model), [*map(str, arguments.data)]) == ("run", expected)


@pytest.mark.slow
def test_scores_of_any_detector_are_measured_by_the_command(tmp_path, capfd):
    lines = ["video_id,label,score", "a,0,0.2", "a,0,0.4", "b,0,0.6", "c,1,0.5", "d,1,0.9"]
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    words = ["evaluate-scores", str(tmp_path / "scores.csv"), "--format", "json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capfd.readouterr().out)
    # Videos .3 and .6 against .5 and .9: three of four pairs are in order.
    assert report["video"]["auc"]["value"] == 0.75
    assert report["frame"]["auc"]["value"] == pytest.approx(5 / 6)
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == {"format_version": 2} | report
    (tmp_path / "scores.csv").write_text("video_id,label,score\na,0,nan\n")
    assert main([*words, "--out", str(tmp_path / "other")]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert_one_line(
        printed.err, "evaluate-scores", "scores.csv", "a number for the score of every face"
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_calibrate_keeps_what_it_found_in_the_run(done_run, prepared_set, tmp_path, capfd):
    import shutil

    shutil.copytree(done_run, tmp_path / "run")
    words = ["calibrate", str(tmp_path / "run"), str(prepared_set), "--fpr", "0.2"]
    assert main([*words, "--format", "json"]) == 0
    result = json.loads(capfd.readouterr().out)
    kept = json.loads((tmp_path / "run/calibration.json").read_text())["calibration"]
    assert result["calibration"] == kept
    assert kept["target_error_rate"] == 0.2 and kept["temperature"] > 0
    names = {path.name for path in (tmp_path / "run/calibration").iterdir()}
    assert names == {"scores.parquet", "calibration_faces.parquet"} | {
        f"{name}.{kind}" for name in ("reliability", "scores") for kind in ("png", "svg")
    }
    assert main([*words[:-1], "0.5", "--overwrite"]) == 1
    assert "got 0.5" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--server", "--model"])
def test_server_that_is_not_there_is_one_clear_line(clips_folder, capfd, option):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    code = main(["predict", str(clip), option, "http://127.0.0.1:9/v1/models/m"])
    assert code == 1
    assert_one_line(capfd.readouterr().err, "predict", "http://127.0.0.1:9/v1/models/m")


@pytest.mark.slow
def test_prepare_counts_faces_and_names_videos_without(clips_folder, bad_files, tmp_path, capfd):
    import shutil

    root = tmp_path / "videos"
    shutil.copytree(clips_folder, root)
    write_video(root / "fake" / "wall.mp4", [noise()] * 3)
    shutil.copy(bad_files["which is neither"], root / "real" / "notes.mp4")
    words = [
        "prepare",
        "folder",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--frames-per-video",
        "2",
    ]
    words += ["--face-size", "71", "--format", "json", "--workers", "1"]
    assert main([*words, "--max-failed", "0.5"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert "failed" not in result
    assert result["videos"] == 18
    assert 0 < sum(result["faces"].values()) <= 2 * 16
    assert set(result["splits"]) == {"train", "val", "test"}
    assert set(result["without_faces"]) >= {"videos/fake/wall", "videos/real/notes"}
    assert all(result["excluded"][name] for name in result["without_faces"])
    assert result["paths"]["videos/fake/wall"] == "fake/wall.mp4"

    assert main([*words, "--max-failed", "0.1"]) == 1
    printed = capfd.readouterr()
    assert json.loads(printed.out)["failed"] == result["without_faces"]
    assert "more than --max-failed 0.1" in printed.err


def test_a_prepared_dataset_is_described_in_lines(tmp_path, monkeypatch, snapshot, capsys):
    from jdfd_keras.datasets.leakage import SharedSource
    from jdfd_keras.datasets.prepared_dataset import PreparedDataset

    faceless = [f"v/{number}" for number in range(52)]
    prepared = PreparedDataset(
        directory="prepared",
        videos=60,
        faces={"real": 369, "fake": 13701},
        splits={split: {"real": 123, "fake": 4567} for split in ("train", "val", "test")},
        not_split="",
        filtered={"blurred": 3, "small": 1},
        excluded=dict.fromkeys(faceless, "no face was found in 3 sampled frames")
        | {"a": "shares footage with test: source 1", "b": "shares footage with test: source 2"},
        without_faces=faceless,
        paths={name: f"{name}.mp4" for name in faceless},
        warnings={"v/1": "cut short"},
        missing=[f"m{number}.mp4" for number in range(7)],
        unrecognized=["x.mp4"],
        notes=["frames were grouped"],
        shared_sources=[SharedSource("v/1", {"train": ["v/2"], "test": ["v/3"]})],
        unknown_sources=7,
    )
    monkeypatch.setattr("jdfd_keras.datasets.prepare.prepare", lambda *_: prepared)
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["prepare", "folder", "videos", "--out", "prepared"]
    assert main(words) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line for line in lines if not line.startswith("no face: v/")] == snapshot
    assert sum(line.startswith("no face: v/") for line in lines) == 50
    assert printed.err == snapshot
    prepared = dataclasses.replace(prepared, splits={}, not_split="too few", shared_sources=[])
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["all", "369", "13701"]
    assert any(line.startswith("not split") and "--split all" in line for line in lines)


@pytest.mark.slow
def test_a_reader_who_has_seen_enough_is_no_failure(prepared_set):
    words = [sys.executable, "-m", "jdfd_keras", "audit", str(prepared_set)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "words",
    [
        ["--max-queue", "0"],
        ["--max-batch-size", "0"],
        ["--batch-timeout-ms", "-5"],
        ["--timeout-s", "nan"],
        ["--max-body-mb", "0"],
    ],
)
def test_limits_under_which_nothing_is_answered_are_refused(words, tmp_path, capfd):
    assert main(["serve", str(tmp_path), *words]) == 1
    assert_one_line(capfd.readouterr().err, "serve", words[0])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\u202egpj.mp4", r"a\u202egpj.mp4"),
        ("b\x1b[31m.mp4", r"b\x1b[31m.mp4"),
        ("c\n.mp4", r"c\n.mp4"),
        ("面 שלום.mp4", "面 שלום.mp4"),
    ],
)
def test_names_are_printed_without_invisible_characters(tmp_path, capfd, name, shown):
    folder = tmp_path / name
    assert main(["inspect", str(folder), "--out", str(tmp_path / "sheet.png")]) == 1
    printed = capfd.readouterr()
    assert_one_line(printed.err, "inspect", shown, "is missing")
    assert printed.err.removesuffix("\n").isprintable()


def test_results_are_printed_without_invisible_characters_but_json_is_exact(capfd, monkeypatch):
    name = "a\u202egpj\x1b[31m.mp4"

    def run(arguments):
        return Output({"path": name}, f"{name}: real\nmore")

    monkeypatch.setitem(COMMANDS, "audit", COMMANDS["audit"]._replace(run=run))
    assert main(["audit", "prepared"]) == 0
    assert capfd.readouterr().out == "a\\u202egpj\\x1b[31m.mp4: real\nmore\n"
    assert main(["audit", "prepared", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"path": name}


def test_a_file_name_that_looks_like_a_flag_is_printed_without_invisible_characters(capfd):
    with pytest.raises(SystemExit):
        main(["audit", "prepared", "--\x1b[31m\u202e.mp4"])
    assert r"unrecognized arguments: --\x1b[31m\u202e.mp4" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("audit", ["none"]),
        ("calibrate", ["none", "none"]),
        ("evaluate", ["none", "none", "--out", "report"]),
        ("evaluate-scores", ["none", "--out", "report"]),
        ("export", ["none", "--name", "a"]),
        ("import-weights", ["none", "--from", "faceforensics", "--out", "a.weights.h5"]),
        ("inspect", ["none", "--out", "a.png"]),
        ("prepare", ["folder", "none", "--out", "prepared", "--detector", "mtcnn"]),
        ("split", ["none"]),
        ("train", ["none", "--out", "run"]),
    ],
)
def test_a_missing_input_is_reported_before_anything_heavy_is_imported(tmp_path, command, words):
    """NumPy takes longer than all that the command line needs."""
    program = (
        "import sys; from jdfd_keras.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, {'numpy', 'cv2', 'tensorflow'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, command, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert_one_line(done.stderr, command, "got none, which is missing")
    assert done.stdout == "1 set()\n"
