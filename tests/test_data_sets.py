"""Each layout, as a small tree of clips, from the videos to a report, by the commands."""

import json
import shutil

import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.manifest import read_manifest

FACES = ["--frames-per-video", "4", "--face-size", "71", "--workers", "1"]
TRAIN = ["--encoder-weights", "none", "--epochs", "1", "--batch-size", "16"]


@pytest.fixture(scope="session")
def people(clips_folder):
    """A real and a fake clip of each of eight people; every fake shows its own person's footage."""
    reals = sorted((clips_folder / "real").glob("*.mp4"))
    fakes = {path.name[:8]: path for path in (clips_folder / "fake").glob("*.mp4")}
    return [(path, fakes[path.stem]) for path in reals]


def pairs_of(*clips):
    return [(clip, read_clips()[clip].partner) for clip in clips]


def lay_faceforensics(root, people, chosen=None):
    """Pairs that swap faces: two for training, one each for validation and testing."""
    first = {}
    for clip, of in reversed(read_clips().items()):
        first[of.split] = clip
    chosen = chosen or pairs_of(first["train"], "605", first["val"], first["test"])
    for number, (one, other) in enumerate(chosen):
        for (real, fake), clip, partner in (
            (people[2 * number], one, other),
            (people[2 * number + 1], other, one),
        ):
            yield real, root / f"original_sequences/youtube/c23/videos/{clip}.mp4"
            folder = root / "manipulated_sequences/Deepfakes/c23/videos"
            yield fake, folder / f"{clip}_{partner}.mp4"


def lay_celebdf(root, people):
    lines = []
    for number, (real, fake) in enumerate(people[:6]):
        partner = number ^ 1
        yield real, root / f"Celeb-real/id{number}_0000.mp4"
        yield fake, root / f"Celeb-synthesis/id{number}_id{partner}_0000.mp4"
        if number < 2:
            lines.append(f"1 Celeb-real/id{number}_0000.mp4")
            lines.append(f"0 Celeb-synthesis/id{number}_id{partner}_0000.mp4")
    for number, (real, _) in enumerate(people[6:]):
        yield real, root / f"YouTube-real/0000{number}.mp4"
    root.mkdir(parents=True, exist_ok=True)
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")


def lay_uadfv(root, people):
    for number, (real, fake) in enumerate(people):
        yield real, root / f"real/{number:04d}.mp4"
        yield fake, root / f"fake/{number:04d}_fake.mp4"


def lay_dfdc(root, people):
    for part in (0, 1):
        facts = {}
        for number, (real, fake) in enumerate(people[4 * part : 4 * part + 4]):
            yield real, root / f"dfdc_train_part_{part}/r{part}{number}.mp4"
            yield fake, root / f"dfdc_train_part_{part}/f{part}{number}.mp4"
            facts[f"r{part}{number}.mp4"] = {"label": "REAL", "split": "train", "original": None}
            original = f"r{part}{number}.mp4"
            facts[f"f{part}{number}.mp4"] = {
                "label": "FAKE",
                "split": "train",
                "original": original,
            }
        text = json.dumps(facts)
        (root / f"dfdc_train_part_{part}" / "metadata.json").write_text(text)


LAYOUTS = {
    "faceforensics": lay_faceforensics,
    "celebdf": lay_celebdf,
    "uadfv": lay_uadfv,
    "dfdc": lay_dfdc,
}


@pytest.fixture(scope="session")
def trees(people, tmp_path_factory):
    """The root of a tree of each layout."""
    roots = {}
    for layout, lay in LAYOUTS.items():
        roots[layout] = tmp_path_factory.mktemp("trees") / layout
        for source, target in lay(roots[layout], people):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return roots


def run(capfd, *words):
    """Run a command that is to succeed; gives its result."""
    assert main([*map(str, words), "--format", "json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tree_goes_through_prepare_audit_train_and_evaluate(
    trees, layout, tmp_path, stand_in, capfd
):
    prepared = tmp_path / "prepared"
    made = run(capfd, "prepare", layout, trees[layout], "--out", prepared, *FACES)
    assert made["unknown"] == []
    rows = read_manifest(prepared)
    for split in ("train", "val", "test"):
        assert {row.label for row in rows if row.split == split} == {0, 1}
        assert sum(made["faces"][split].values()) == sum(row.split == split for row in rows)

    audit = run(capfd, "audit", prepared, "--out", tmp_path / "audit")
    assert audit["leaks"]["shared_sources"]["count"] == 0
    assert audit["leaks"]["near_duplicates"]["count"] == 0
    assert audit["sets"][0]["faces"] == len(rows)

    run(capfd, "train", prepared, "--out", tmp_path / "run", *TRAIN)
    report = run(capfd, "evaluate", tmp_path / "run", prepared, "--out", tmp_path / "report")
    assert 0 <= report["frame"]["auc"]["value"] <= 1
    assert report["protocol"]["leaks"].startswith("none between training and evaluation")
    shown = {row.manipulation for row in rows if row.split == "test"} - {""}
    assert set(report["by_manipulation"]) == shown
    assert report["frame"]["num_real"] == sum((row.split, row.label) == ("test", 0) for row in rows)


def test_what_another_set_was_trained_on_is_found_in_a_test_set(trees, tmp_path, stand_in, capfd):
    """The same clips under other names: no source tells, but the faces do."""
    for layout, seed in (("uadfv", 0), ("dfdc", 1)):
        words = ["prepare", layout, trees[layout], "--out", tmp_path / layout, *FACES]
        run(capfd, *words, "--seed", seed)
    run(capfd, "train", tmp_path / "uadfv", "--out", tmp_path / "run", *TRAIN)
    words = [
        "evaluate",
        str(tmp_path / "run"),
        str(tmp_path / "dfdc"),
        "--out",
        str(tmp_path / "r"),
        "--split",
        "train",
    ]
    assert main(words) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "0 shared sources and" in error and "looks like" in error
    report = run(capfd, *words, "--allow-leak")
    assert "allowed by --allow-leak" in report["protocol"]["leaks"]
    assert main(["audit", str(tmp_path / "uadfv"), str(tmp_path / "dfdc")]) == 1
    assert "pairs of videos with near-duplicate faces in two splits" in capfd.readouterr().out


def test_official_pairs_of_one_source_are_found_refused_and_left_out_by_strict(
    people, tmp_path, stand_in, capfd
):
    """605 (training) and 606 (validation) were cut from one video."""
    chosen = pairs_of("001", "605", "606", "000")
    assert [read_clips()[one].split for one, _ in chosen] == ["train", "train", "val", "test"]
    for source, target in lay_faceforensics(tmp_path / "ff", people, chosen):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    words = ["prepare", "faceforensics", str(tmp_path / "ff"), *FACES]
    run(capfd, *words, "--out", tmp_path / "official")
    assert main(["audit", str(tmp_path / "official"), "--format", "json"]) == 1
    audit = json.loads(capfd.readouterr().out)
    assert [entry["source"] for entry in audit["leaks"]["shared_sources"]["sources"]] == [
        "ffpp/605"
    ]
    assert audit["leaks"]["near_duplicates"]["count"] == 0
    train = ["train", str(tmp_path / "official"), "--out", str(tmp_path / "run"), *TRAIN]
    assert main(train) == 1
    assert "source ffpp/605 in train and val" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()

    made = run(capfd, *words, "--out", tmp_path / "strict", "--split", "strict")
    partner = read_clips()["605"].partner
    assert set(made["left_out"]) == {
        "ffpp/youtube/c23/605",
        f"ffpp/Deepfakes/c23/605_{partner}",
        f"ffpp/Deepfakes/c23/{partner}_605",
    }
    assert main(["audit", str(tmp_path / "strict")]) == 0
    train[1] = str(tmp_path / "strict")
    assert main(train) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_wrong_folder_is_refused_with_what_was_looked_for(layout, tmp_path, capfd):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.mp4").touch()
    out = tmp_path / "out"
    assert main(["prepare", layout, str(tmp_path / "holiday"), "--out", str(out)]) == 1
    error = capfd.readouterr().err
    looked_for = {
        "faceforensics": "original_sequences/youtube/c23/videos",
        "celebdf": "Celeb-real/, Celeb-synthesis/, YouTube-real/",
        "uadfv": "real/ (0000.mp4), fake/ (0000_fake.mp4)",
        "dfdc": "dfdc_train_part_0/",
    }
    assert looked_for[layout] in error
    assert "got beach.mp4" in error
    assert not out.exists()
