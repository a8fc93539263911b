"""The ratios, counts, ground truth and pages behind the published figures of benchmarks/."""

import dataclasses
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.faces.detect import Box
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import ModelOptions

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Make the modules of benchmarks/ importable, under names that no other test keeps."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "evaluation",
        "generalisation",
        "jobs",
        "landmarks",
        "methods",
        "prepare_fsync",
        "result_folders",
        "robustness",
        "serving",
        "serving_memory",
        "speed",
        "training",
    ],
)
def test_the_pages_show_the_latest_result(name):
    report = json.loads((BENCHMARKS / f"results/{name}.json").read_text(encoding="utf-8"))
    page = importlib.import_module(name).render(report)
    assert page == (BENCHMARKS / f"results/{name}.md").read_text(encoding="utf-8")
    tables = [block for block in page.strip().split("\n\n") if block.startswith("| ")]
    assert tables
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    if name in ("speed", "training"):  # its other tables are in results/ alone
        tables = tables[:1]
    assert [table for table in tables if table not in text] == []


def test_evaluation_uses_the_slower_kind_of_scores_and_medians():
    kind = {"frame_s": 18.0, "video_s": 2.0, "peak_mb": 1400}
    seconds = {"predict_dataset": [10.0, 99.0, 11.0], "predict": [10.45, 10.45, 1.0]}
    report = {
        "metrics": {"kinds": {"no ties": kind, "ties": kind | {"frame_s": 17.0}}},
        "scoring": {"seconds": seconds},
    }
    expected = {"auc_s": 20.0, "all_s": 20.0, "peak_mb": 1400, "scoring": 10.45 / 11}
    assert importlib.import_module("evaluation").find_results(report) == pytest.approx(expected)


def test_methods_have_the_slowest_ratio_and_the_sum_of_all_passes():
    steps = {
        "capsule": {"train": 2.2, "bare": 2.0, "batch_size": 100},
        "fwa": {"train": 1.0, "bare": 1.25, "batch_size": 64},
    }
    passes = {name: {"wall_s": 1800.0, "peak_mb": 900} for name in ("capsule", "headpose")}
    report = {"steps": steps, "passes": passes}
    methods = importlib.import_module("methods")
    assert methods.find_results(report) == pytest.approx({"overhead": 1.1, "hours": 1.0})
    report |= {
        "machine": {"date": "d", "processor": "p", "cores": "2", "python": "3"},
        "data": {"train": 5, "val": 2, "test": 3, "size": 128, "steps": 10},
    }
    lines = [line for line in methods.render(report).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    cells = {name: own for name, *own in rows}
    assert cells["fwa"] == ["64", "1.000", "1.250", "0.800", "", ""]
    assert cells["headpose"] == ["", "", "", "", "1800", "900"]


def test_robustness_divides_by_the_plain_runs_before_and_after():
    plain = [{"wall_s": wall_s, "cpu_s": 2 * wall_s} for wall_s in (10.0, 30.0, 10.0)]
    degraded = {
        "jpeg": [{"wall_s": 30.0, "cpu_s": 40.0}],
        "blur": [{"wall_s": 22.0, "cpu_s": 48.0}],
    }
    seconds = {"as they are": plain, **degraded}
    report = {"seconds": seconds, "faces": 9, "size": 192, "model": "m", "engine": "e"}
    benchmark = importlib.import_module("robustness")
    ratios = benchmark.find_ratios(report)
    assert ratios["jpeg"] == pytest.approx({"wall_s": 1.5, "cpu_s": 1.0})
    assert ratios["blur"] == pytest.approx({"wall_s": 1.1, "cpu_s": 1.2})
    page = benchmark.render(report | {"machine": {"processor": "", "cores": "2", "date": ""}})
    assert "|       1.30 | met |" in page


def test_serving_uses_the_slower_transport_and_medians():
    per_s = {"direct": [10.0, 99.0, 8.0], "REST": [9.0, 9.0, 1.0], "gRPC": [9.5, 9.5, 9.5]}
    report = {
        "throughput": {"per_s": per_s},
        "overhead": {"p50_ms": {"direct": [100.0], "REST": [105.5], "gRPC": [101.0]}},
        "decoder": {"seconds": {"faces": [2.0], "both": [2.4]}},
        "memory": {"rss_mb": [500.0] * 5 + [900.0] * 5 + [921.0] * 5},
        "swap": {"failed": 1},
    }
    expected = {"throughput": 0.9, "overhead_ms": 5.5, "decoder": 1.2, "growth_mb": 21.0}
    measured = importlib.import_module("serving").compare_with_targets(report)
    assert measured == pytest.approx(expected | {"failed": 1})


def test_jobs_compares_the_ends_of_both_times_and_counts_what_is_wrong():
    report = {
        "load": {"predict_s": 380.0, "service_s": 400.0},
        "memory": {"memory_mb": [[100.0] * 6 + [500.0, 510.0], [900.0] * 3 + [525.0]]},
        "overhead": {"images": 101, "predict_s": 40.0, "service_s": 43.0},
        "kills": {"jobs": 60, "in_service": 61, "wrong": 2},
    }
    compare = importlib.import_module("jobs").compare_with_targets
    expected = {"throughput": 0.95, "growth_mb": 20.0, "overhead_ms": 30.0, "lost": 3}
    assert compare(report) == pytest.approx(expected)
    report["kills"] |= {"in_service": 58, "wrong": 0}
    assert compare(report)["lost"] == 2


def test_training_divides_by_the_faster_precision_of_pytorch_for_each_batch_size():
    seconds = {"from shards": 2.1, "in memory": 2.0, "without decoder": 1.6}
    seconds |= {"plain Keras, float32": 5.0, "PyTorch, float32": 4.0, "PyTorch, bfloat16": 2.5}
    report = {"memory": {"growth_mb": 3.0}}
    report["steps"] = {"seconds": {"4": seconds, "16": seconds | {"in memory": 10.0}}}
    measured = importlib.import_module("training").find_ratios(report)
    assert measured == pytest.approx(
        {"pipeline": 1.05, "decoder": 1.25, "torch 4": 0.8, "torch 16": 4.0}
        | {"plain 4": 0.4, "plain 16": 2.0, "memory": 3.0}
    )


def test_speed_divides_medians_and_states_what_was_not_measured():
    part = {"machine": {"date": "", "processor": "", "cores": "2", "python": ""}, "is_dry": False}
    seconds = {"this build": [2.0, 9.0, 1.0], "reference build": [10.0, 4.0, 30.0]}
    tracking = {"per_s": seconds, "overlap": 0.95, "reference": "0.1", "clip_s": 6.0}
    tracking |= {"tracks": dict.fromkeys(seconds, 1)}
    per_s = {"tensorflow float32": [10.0], "openvino float32": [13.0], "openvino bfloat16": [24.0]}
    engine = {name: name for name in per_s}
    scoring = {"per_s": per_s, "engine": engine, "faces": 64, "size": 299}
    report = {"tracking": part | tracking, "scoring": part | scoring}
    page = importlib.import_module("speed_report").render(report)
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in page.splitlines()]
    verdict, bfloat16, *_, speed, overlap, memory = rows[4:][: rows[4:].index([])]
    assert verdict == ["at most 0.33", "", "not measured"]
    assert bfloat16 == ["at least 2.4", "2.40", "met"]
    assert speed == ["at least 1.5", "0.20", "**not met**"]
    assert overlap == ["at least 0.9", "0.95", "met"]
    assert memory == ["at most 700", "", "not measured"]


def test_other_tracks_have_no_overlap():
    smallest_overlap = importlib.import_module("speed").smallest_overlap
    ours = [{"0": [0, 0, 10, 10], "1": [0, 0, 10, 10]}, {"1": [50, 0, 60, 10]}]
    moved = [{"0": [0, 0, 10, 10], "1": [0, 5, 10, 15]}, {"1": [50, 0, 60, 10]}]
    assert smallest_overlap(ours, ours) == 1
    assert smallest_overlap(ours, moved) == pytest.approx(50 / 150)
    assert smallest_overlap(ours, ours[:1]) == 0
    assert smallest_overlap(ours, [ours[0], {"2": [50, 0, 60, 10]}]) == 0
    assert smallest_overlap([{"0": [0, 0, 10, 10]}], [{"0": [20, 20, 30, 30]}]) == 0


def test_memory_is_the_sum_of_a_process_and_its_children():
    from speed_processes import Build

    hold = "import time; data = bytearray({}_000_000); {}; time.sleep(1); print('done')"
    child = hold.format(100, "pass")
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    build = Build(sys.executable, (sys.executable, "-c", hold.format(200, start)), {})
    watched = build.watch()
    assert watched["output"].split() == [b"done", b"done"]
    assert 300 < watched["peak_mb"] < 400
    assert sorted(size // 100 for size in watched["processes_mb"]) == [1, 2]


def test_a_long_clip_repeats_a_short_one_without_a_jump(tmp_path):
    import av
    from face_clips import Kind, Role
    from speed_clips import write_long_clip

    kind = Kind("", 160, 120, 12, (Role(50, 0.5),))
    seconds = write_long_clip(tmp_path / "long.mp4", kind, 6)
    with av.open(str(tmp_path / "long.mp4")) as clip:
        frames = list(clip.decode(video=0))
    assert [path.suffix for path in tmp_path.iterdir() if path.stem == "long"] == [".mp4"]
    assert len(frames) == pytest.approx(150, abs=22)
    assert seconds == pytest.approx(len(frames) / 25)
    times = [frame.time for frame in frames]
    np.testing.assert_allclose(times, np.arange(len(frames)) / 25, atol=1e-6)
    pixels = np.array([frame.to_ndarray(format="rgb24") for frame in frames], float)
    assert np.array_equal(pixels[:44], pixels[44:88])  # a cycle: 11 frames, four times
    steps = np.abs(np.diff(pixels, axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 3 * np.median(steps)


def round_of(held_out, **auc):
    """Return a round in which the AUC of each arm is that of the held-out kind, and 1 of others."""
    from generalisation import ARMS

    from jdfd_keras.options import FAKE_KINDS

    def figures(arm):
        own = dict.fromkeys(FAKE_KINDS, 1.0) | {held_out: auc.get(arm.replace(" ", "_"), 0.5)}
        return {"auc": own, "auc_h264": own, "minutes": None if arm == "real" else 2.0}

    return {"seed": 0, "held_out": held_out, "arms": {arm: figures(arm) for arm in ARMS}}


def test_generalisation_compares_arms_of_the_same_round():
    from generalisation import interval, render, summarize

    complete = [
        round_of("local", no_decoder=0.5, clean=0.6),
        round_of("swapped", no_decoder=0.7, clean=0.7),
        round_of("local", no_decoder=0.6, clean=0.8),
    ]
    clean = summarize(complete)["clean"]
    assert clean["held_out"] == [0.6, 0.7, 0.8]
    assert clean["difference"] == pytest.approx([0.1, 0.0, 0.2])
    assert clean["seen"] == [1.0, 1.0, 1.0]
    # The quantile of Student's t with 2 degrees of freedom, from a printed table: 4.303.
    half = 4.303 * 0.1 / np.sqrt(3)
    assert interval(clean["difference"]) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-4)
    assert interval(clean["difference"][:2]) is None

    report = {
        "machine": {"date": "", "processor": "", "cores": "2", "python": ""},
        "faces": {"train": 3, "val": 1, "test": 1},
        "settings": dict.fromkeys(("size", "epochs", "batch_size", "learning_rate"), 1)
        | {"precision": "float32", "encoder_weights": "none", "has_photographs": True},
        "rounds": complete,
    }
    page = render(report)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    (overall, by_kind) = (row for row in cells if row[:1] == ["clean"])
    assert overall[1:3] == ["0.700 (0.452 to 0.948)", "+0.100 (-0.148 to +0.348)"]
    assert by_kind == ["clean", "", "0.700", "", "0.700"]  # local: of 0.6 and 0.8
    assert [row[5] for row in cells if row[:1] == ["real"] and len(row) == 7] == [""]
    assert "Mechanics only" not in page
    report["settings"]["has_photographs"] = False
    assert "**Mechanics only**" in render(report)


def test_generalisation_has_every_seed_and_kind_once_in_12_rounds():
    from generalisation import SEEDS, choose_round

    from jdfd_keras.options import FAKE_KINDS

    grid = {choose_round(number) for number in range(12)}
    assert grid == {(seed, kind) for seed in range(SEEDS) for kind in FAKE_KINDS}


def test_generalisation_reads_complete_rounds_only(tmp_path):
    from generalisation import ARMS, read_rounds

    for number, arms in enumerate((list(ARMS), list(ARMS)[:-1])):
        (tmp_path / f"runs/{number:02d}").mkdir(parents=True)
        for arm in arms:
            path = tmp_path / f"runs/{number:02d}" / f"{arm.replace(' ', '')}.json"
            path.write_text(json.dumps({"number": number}))
    (found,) = read_rounds(tmp_path)
    assert (found["seed"], found["held_out"]) == (0, "self-blended")
    assert found["arms"] == {arm: {"number": 0} for arm in ARMS}


@pytest.mark.slow
def test_generalisation_tests_on_fakes_of_each_kind(tmp_path):
    import argparse

    from generalisation import CRF, DRAWS, measure_kinds, prepare_portraits

    from jdfd_keras.datasets.face_index import FAKE_COLUMNS, index_faces
    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.datasets.transforms import compress_h264
    from jdfd_keras.options import FAKE_KINDS

    scratch = tmp_path / "scratch"
    prepare_portraits(argparse.Namespace(scratch=scratch, portraits=None, subjects=4, size=71))
    data = scratch / "prepared"
    faces = index_faces(data, read_faces(data, columns=FAKE_COLUMNS))
    real = np.stack([faces.read(index) for index in range(4)])
    known = np.concatenate([real, [compress_h264(crop, CRF) for crop in real]]).astype(int)
    calls = []

    def distance_from_known(crops):
        calls.append(crops)
        return np.array([abs(crop - known).mean(axis=(1, 2, 3)).min() for crop in crops])

    measured = measure_kinds(distance_from_known, faces)
    assert measured[0] == dict.fromkeys(FAKE_KINDS, 1.0)
    assert min(measured[1].values()) > 0.9  # strong compression hides some local edits
    assert [len(crops) for crops in calls] == [4, *[4 * DRAWS] * 4] * 2
    fakes = [crop.tobytes() for crops in calls[1:5] for crop in crops]
    assert len(set(fakes)) == len(fakes)  # kinds and draws differ
    again = calls[:]
    calls.clear()
    measure_kinds(distance_from_known, faces)
    assert all(np.array_equal(a, b) for a, b in zip(calls, again, strict=True))


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_the_pytorch_detector_has_as_many_trainable_weights():
    from torch_detector import Detector

    theirs = sum(weight.numel() for weight in Detector(299).parameters())
    ours = build_detector(ModelOptions(encoder_weights="none"))
    assert theirs == sum(int(v.numpy().size) for v in ours.trainable_variables)


def test_a_detector_finds_the_true_face_of_a_generated_clip(tmp_path, astronaut):
    import dlib
    from face_clips import Kind, Role, read_people, render_clip

    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), astronaut[..., ::-1])
    kind = Kind("", 240, 200, 60, (Role(90, 0.5),))
    for index, (pixels, (face,)) in enumerate(render_clip(kind, read_people([path], 1), seed=3)):
        if index % 20 == 0:
            (found,) = dlib.get_frontal_face_detector()(pixels, 1)
            center = found.center()
            # The search steps of dlib are a sixth of the width.
            np.testing.assert_allclose((center.x, center.y), face.box.center, atol=9)
            assert found.width() == pytest.approx(face.box.width, rel=0.2)


def test_missed_false_and_partly_visible_faces_are_counted_separately():
    from face_clips import TrueFace
    from face_measures import count_found, count_mixed_tracks, landmark_distance

    @dataclasses.dataclass
    class Found:
        box: Box
        landmarks: np.ndarray
        track_id: int = 0

    points = np.zeros((68, 2))
    points[45] = 20, 0  # the outer eye corners are 20 pixels apart
    assert landmark_distance(points + (3, 4), points) == pytest.approx(0.25)
    here, there, edge = (Box(x, 10, x + 40, 50, 1.0) for x in (10, 100, -20))
    truth = [
        [TrueFace(0, here, points, True), TrueFace(1, there, points, True)],
        [TrueFace(0, edge, points, False), TrueFace(1, there, points, True)],
    ]
    false_box = Box(200, 200, 240, 240, 1.0)
    found = [
        [Found(here, points), Found(false_box, points, 1)],
        [Found(edge, points), Found(there, points)],
    ]
    counts = count_found(truth, found, "our")
    assert (counts["true"], counts["our_found"], counts["our_false"]) == (3, 2, 1)
    assert count_mixed_tracks(truth, found) == 1


def test_face_targets_include_the_slowest_kind_of_clip():
    from face_report import compare_with_targets, summarize

    usual = dict.fromkeys(("usual_s", "usual_cpu_s", "usual_each_s"), 20.0)
    rest = {"frames": 10, "tracks": 1, "usual_boxes": 10, "our_boxes": 10}
    rest |= {"difference": [0.004], "noise": [0.003]} | usual
    rest |= {"opencv_sampling_s": 3.0, "our_sampling_s": 2.0}
    slow, fast = (rest | {"our_s": s, "our_cpu_s": s} for s in (2.0, 0.5))
    rows = {"slow": summarize([slow]), "fast": summarize([fast]), "all": summarize([slow, fast])}
    assert rows["all"]["sampling_speedup"] == 1.5
    overall, each, median, *_ = compare_with_targets(rows)
    assert (overall["measured"], overall["met"]) == ("16.0", True)
    assert (each["measured"], each["met"]) == ("at least 10.0", False)
    assert (median["measured"], median["met"]) == ("0.40%", True)


@pytest.mark.slow
def test_the_swap_benchmark_runs_to_its_end(tmp_path):
    import subprocess

    command = [sys.executable, str(BENCHMARKS / "serving.py"), "--out", str(tmp_path / "s.json")]
    options = ["--only", "swap", "--before-swap", "0.5"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    assert json.loads((tmp_path / "s.json").read_text())["swap"]["failed"] == 0


@pytest.mark.slow
def test_the_speed_benchmark_runs_to_its_end(tmp_path):
    import subprocess

    out, reference = tmp_path / "s.json", Path(sys.executable).with_name("jdfd-keras")

    def run(*options):
        command = [sys.executable, BENCHMARKS / "speed.py", "--dry", "--out", out, *options]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)

    run("--only", "tracking", "--reference", reference)
    run("--only", "predict", "scoring", "memory")
    report = json.loads(out.read_text())
    assert list(report) == ["predict", "scoring", "tracking", "memory"]
    assert report["tracking"]["overlap"] == 1
    page = out.with_suffix(".md").read_text()
    assert page.count("not measured") == 7
    assert "**Mechanics only**" in page


def test_the_domain_page_shows_the_latest_result():
    from domain import render

    report = json.loads((BENCHMARKS / "results/domain.json").read_text(encoding="utf-8"))
    page = render(report)
    assert page == (BENCHMARKS / "results/domain.md").read_text(encoding="utf-8")
    text = (ROOT / "docs/domain.md").read_text(encoding="utf-8")
    tables = [block for block in page.strip().split("\n\n") if block.startswith("| ")]
    assert tables[0] in text


def test_domain_sums_the_files_of_a_kind():
    from domain import summarize

    def count(files, flagged, **other):
        return {"files": files, "flagged": flagged} | other

    report = {
        "held_out": count(100, 5),
        "kinds": {
            "a": count(20, 19, kind="drawn faces"),
            "b": count(10, 8, kind="drawn faces"),
            "c": count(9, 9, kind="strong blur"),
        },
        "framings": {
            "standard framing": count(50, 2),
            "margin 1.8": count(50, 49),
            "eyes only": count(50, 50),
        },
    }
    assert summarize(report) == {
        "like validation": count(100, 5),
        "drawn faces": count(30, 27),
        "strong blur": count(9, 9),
        "crops of another framing": count(100, 99),
        "crops of the standard framing": count(50, 2),
    }


def test_domain_uses_each_person_in_one_part():
    from domain import split_people

    parts = split_people(list("abcdefghijklmnopqrstuvwxyz" * 4))
    numbers = [number for members in parts.values() for number, _ in members]
    assert sorted(numbers) == list(range(104))
    assert [len(members) for members in parts.values()] == [37, 4, 32, 31]


def test_domain_frames_a_face_at_its_standard_position(astronaut, astronaut_landmarks):
    from domain import frame_face

    from jdfd_keras.datasets.synthetic.clips import Portrait
    from jdfd_keras.faces.align import align_face
    from jdfd_keras.options import FaceOptions

    portrait = Portrait("a", astronaut, astronaut_landmarks)
    options = FaceOptions(face_size=256)
    expected = align_face(astronaut, astronaut_landmarks, Box(0, 0, 9, 9, 1.0), options).crop
    difference = np.abs(frame_face(portrait, {}).astype(int) - expected)
    assert difference.mean() < 3  # another interpolation
    # Half the zoom about the centre shows the whole crop in the middle half.
    wide = frame_face(portrait, {"margin": 2 * options.margin})[64:192, 64:192]
    assert np.abs(cv2.resize(expected, (128, 128)).astype(int) - wide).mean() < 6


def test_the_detector_page_shows_the_latest_result():
    from detector import render

    report = json.loads((BENCHMARKS / "results/detector.json").read_text(encoding="utf-8"))
    page = render(report)
    assert page == (BENCHMARKS / "results/detector.md").read_text(encoding="utf-8")
    text = (ROOT / "docs/detector.md").read_text(encoding="utf-8")
    tables = [block for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    assert [table for table in tables if table.strip() not in text] == []
    first_page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables[1].strip() in first_page
    value, low, high = re.findall(r"\| (\d\S+) \((\S+) to (\S+)\)", tables[1])[0]
    words = " ".join(first_page.split())
    assert f"its AUC is {value} (95 % interval {low} to {high})" in words
    assert f"photographs of {report['people']['train']} people" in words


def test_the_detector_has_each_person_in_one_split():
    from detector import divide

    names = [f"{number:03d}.jpg" for number in range(357)]
    parts = divide(names)
    assert sorted(sum(parts.values(), [])) == names
    assert [len(part) for part in parts.values()] == [262, 45, 50]
    assert parts == divide(names)


def test_the_epochs_with_the_highest_auc_are_chosen():
    from detector import choose_epochs

    assert choose_epochs({20: 0.8, 25: 0.91, 30: 0.9, 35: 0.89}) == 25
    assert choose_epochs({30: 0.91, 20: 0.8, 25: 0.91}) == 25


def test_the_weights_of_three_kept_detectors_are_averaged(tmp_path):
    import argparse

    import keras
    from detector import average_kept

    (tmp_path / "kept").mkdir()
    for epochs, weight in ((5, 1.0), (10, 2.0), (15, 6.0), (20, 7.0)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.set_weights([np.array([[weight]]), np.array([-weight])])
        model.save(tmp_path / "kept" / f"{epochs:03d}.keras")
    found = average_kept(argparse.Namespace(scratch=tmp_path))
    values = {epochs: keras.models.load_model(path).get_weights() for epochs, path in found.items()}
    assert {epochs: float(weights[0][0, 0]) for epochs, weights in values.items()} == {15: 3, 20: 5}
    assert {epochs: float(weights[1][0]) for epochs, weights in values.items()} == {15: -3, 20: -5}


@pytest.mark.parametrize("kind", ["affine-swap", "seamless-swap", "eigenface", "expression"])
def test_a_forgery_changes_the_inner_face_alone(kind, astronaut):
    from detector_clips import Eigenfaces, make_forgery

    from jdfd_keras.datasets.synthetic.blending import inner_face_mask
    from jdfd_keras.datasets.synthetic.clips import vary_portrait

    target, donor, *others = vary_portrait(astronaut, 4, seed=0)
    faces = Eigenfaces([donor, *others])
    forge = make_forgery(kind, target, donor, faces, np.random.default_rng(0))
    for frame in (forge(target.pixels, target.landmarks) for _ in range(3)):
        is_inside = inner_face_mask(target.landmarks, frame.shape[:2], 0.0) > 0
        changed = (frame != target.pixels).any(axis=-1)
        assert not changed[~is_inside].any()
        assert changed[is_inside].mean() > 0.1


def test_eigenfaces_return_the_faces_that_they_were_fitted_to(astronaut):
    from detector_clips import Eigenfaces

    from jdfd_keras.datasets.synthetic.clips import vary_portrait

    portraits = vary_portrait(astronaut, 4, seed=0)
    faces = Eigenfaces(portraits)
    for portrait in portraits:  # three components hold four faces
        expected = faces._flatten(portrait)
        found = faces.reconstruct(portrait).pixels.ravel()
        np.testing.assert_allclose(found, expected, atol=1)
