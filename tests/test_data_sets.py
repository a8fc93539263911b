"""A small dataset in each layout, from the videos to a report, with the commands."""

import functools
import json
import shutil

import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.audit import audit
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.manifest import FaceRow, read_faces, read_videos, to_rows
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.options import FaceOptions, PrepareOptions

FACES = ["--frames-per-video", "4", "--face-size", "71", "--workers", "1"]
TRAIN = ["--encoder-weights", "none", "--epochs", "1", "--batch-size", "16"]


@pytest.fixture(scope="session")
def clips(clips_folder):
    """Return a real and a fake clip of each of eight people, both of the same footage."""
    reals = sorted((clips_folder / "real").glob("*.mp4"))
    fakes = {path.name[:8]: path for path in (clips_folder / "fake").glob("*.mp4")}
    return [(path, fakes[path.stem]) for path in reals]


def pairs_of(*clips):
    return [(clip, read_clips()[clip].partner) for clip in clips]


def arrange_faceforensics(root, clips, chosen=None):
    """Yield pairs that swap faces: two for training, one each for validation and testing."""
    first = {}
    for clip, of in reversed(read_clips().items()):
        first[of.split] = clip
    chosen = chosen or pairs_of(first["train"], "605", first["val"], first["test"])
    for number, (one, other) in enumerate(chosen):
        for (real, fake), clip, partner in (
            (clips[2 * number], one, other),
            (clips[2 * number + 1], other, one),
        ):
            yield real, root / f"original_sequences/youtube/c23/videos/{clip}.mp4"
            folder = root / "manipulated_sequences/Deepfakes/c23/videos"
            yield fake, folder / f"{clip}_{partner}.mp4"


def arrange_celebdf(root, clips):
    lines = []
    for number, (real, fake) in enumerate(clips[:6]):
        partner = number ^ 1
        yield real, root / f"Celeb-real/id{number}_0000.mp4"
        yield fake, root / f"Celeb-synthesis/id{number}_id{partner}_0000.mp4"
        if number < 2:
            lines.append(f"1 Celeb-real/id{number}_0000.mp4")
            lines.append(f"0 Celeb-synthesis/id{number}_id{partner}_0000.mp4")
    for number, (real, _) in enumerate(clips[6:]):
        yield real, root / f"YouTube-real/0000{number}.mp4"
    root.mkdir(parents=True, exist_ok=True)
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")


def arrange_uadfv(root, clips):
    for number, (real, fake) in enumerate(clips):
        yield real, root / f"real/{number:04d}.mp4"
        yield fake, root / f"fake/{number:04d}_fake.mp4"


def arrange_dfdc(root, clips):
    for part in (0, 1):
        metadata = {}
        for number, (real, fake) in enumerate(clips[4 * part : 4 * part + 4]):
            yield real, root / f"dfdc_train_part_{part}/r{part}{number}.mp4"
            yield fake, root / f"dfdc_train_part_{part}/f{part}{number}.mp4"
            metadata[f"r{part}{number}.mp4"] = {"label": "REAL", "split": "train", "original": None}
            original = f"r{part}{number}.mp4"
            metadata[f"f{part}{number}.mp4"] = {
                "label": "FAKE",
                "split": "train",
                "original": original,
            }
        text = json.dumps(metadata)
        (root / f"dfdc_train_part_{part}" / "metadata.json").write_text(text)


LAYOUTS = {
    "faceforensics": arrange_faceforensics,
    "celebdf": arrange_celebdf,
    "uadfv": arrange_uadfv,
    "dfdc": arrange_dfdc,
}


@pytest.fixture(scope="session")
def roots(clips, tmp_path_factory):
    """Return the root of a dataset in each layout."""
    folders = {}
    for layout, arrange in LAYOUTS.items():
        folders[layout] = tmp_path_factory.mktemp("roots") / layout
        for source, target in arrange(folders[layout], clips):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return folders


@pytest.fixture(scope="session")
def prepare_layout(roots, tmp_path_factory):
    """Return a function that prepares the dataset of a layout, once."""

    @functools.cache
    def make(layout):
        out = tmp_path_factory.mktemp("prepared") / layout
        faces, options = FaceOptions(frames_per_video=4, face_size=71), PrepareOptions(layout)
        return prepare(roots[layout], out, faces, options)

    return make


def run(capfd, *words):
    """Run a command without error and return its result."""
    assert main([*map(str, words), "--format", "json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dataset_of_each_layout_is_prepared_without_leakage(prepare_layout, layout):
    made = prepare_layout(layout)
    assert made.unrecognized == []
    rows = to_rows(read_faces(made.directory), FaceRow)
    for split in ("train", "val", "test"):
        assert {row.label for row in rows if row.split == split} == {0, 1}
        assert sum(made.splits[split].values()) == sum(row.split == split for row in rows)
    audited = audit([made.directory])
    assert (audited.num_shared_sources, audited.num_near_duplicates) == (0, 0)
    assert audited.datasets[0].num_faces == len(rows)


@pytest.mark.parametrize("layout", ["faceforensics", "celebdf"])
@pytest.mark.slow
def test_a_prepared_dataset_is_trained_on_and_evaluated(
    prepare_layout, layout, tmp_path, stand_in, capfd
):
    prepared = prepare_layout(layout).directory
    rows = to_rows(read_faces(prepared), FaceRow)
    run(capfd, "train", prepared, "--out", tmp_path / "run", *TRAIN)
    report = run(capfd, "evaluate", tmp_path / "run", prepared, "--out", tmp_path / "report")
    assert 0 <= report["frame"]["auc"]["value"] <= 1
    assert report["protocol"]["leakage"].startswith("none between training")
    shown = {row.manipulation for row in rows if row.split == "test"} - {""}
    assert set(report["by_manipulation"]) == shown
    assert report["frame"]["num_real"] == sum((row.split, row.label) == ("test", 0) for row in rows)


@pytest.mark.slow
def test_training_faces_of_another_data_set_are_found_in_a_test_set(
    prepare_layout, tmp_path, stand_in, capfd
):
    """The same clips with other names share no sources, but near-duplicate faces."""
    uadfv, dfdc = prepare_layout("uadfv").directory, prepare_layout("dfdc").directory
    for seed, directory in enumerate((uadfv, dfdc)):
        run(capfd, "split", directory, "--seed", seed, "--name", "mixed")
    run(capfd, "train", uadfv, "--out", tmp_path / "run", *TRAIN)
    words = ["evaluate", str(tmp_path / "run"), dfdc, "--out", str(tmp_path / "report")]
    words += ["--split", "train", "--split-table", "mixed"]
    assert main(words) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "0 shared sources and" in error and "looks like" in error
    report = run(capfd, *words, "--allow-leak")
    assert "allowed by --allow-leak" in report["protocol"]["leakage"]
    assert main(["audit", uadfv, dfdc, "--split-table", "mixed"]) == 1
    assert "near-duplicate faces in two" in capfd.readouterr().out


def test_official_pairs_of_one_source_are_found_and_excluded_by_strict(
    clips, tmp_path, stand_in, capfd
):
    """605 (training) and 606 (validation) were cut from one video."""
    chosen = pairs_of("001", "605", "606", "000")
    assert [read_clips()[one].split for one, _ in chosen] == ["train", "train", "val", "test"]
    for source, target in arrange_faceforensics(tmp_path / "ff", clips, chosen):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    words = ["prepare", "faceforensics", str(tmp_path / "ff"), *FACES]
    run(capfd, *words, "--out", tmp_path / "official")
    assert main(["audit", str(tmp_path / "official"), "--format", "json"]) == 1
    audited = json.loads(capfd.readouterr().out)
    assert [entry["source"] for entry in audited["shared_sources"]] == ["ffpp/605"]
    assert audited["num_near_duplicates"] == 0
    train = ["train", str(tmp_path / "official"), "--out", str(tmp_path / "run"), *TRAIN]
    assert main(train) == 1
    assert "ffpp/605 in train and val" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()

    (table,) = run(capfd, "split", tmp_path / "official", "--strategy", "strict")["tables"]
    assert table["excluded"] == {"shares footage with val": 3}
    partner = read_clips()["605"].partner
    strict = (tmp_path / "official/splits/strict.csv").read_text().splitlines()[1:]
    excluded = [line.split(",")[0] for line in strict if line.split(",")[1] == ""]
    assert set(excluded) == {
        "ffpp/youtube/c23/605",
        f"ffpp/Deepfakes/c23/605_{partner}",
        f"ffpp/Deepfakes/c23/{partner}_605",
    }
    by_strict = ["--split-table", "strict"]
    assert main(["audit", str(tmp_path / "official"), *by_strict]) == 0
    assert main([*train, *by_strict]) == 0


@pytest.mark.slow
def test_five_folds_cost_one_extraction(
    clips, tmp_path, stand_in, capfd, monkeypatch, in_this_process
):
    """From the videos to a report for each fold; every fold tests other videos."""
    from jdfd_keras.datasets import prepare_tasks

    decoded, extract = [], prepare_tasks.extract_faces

    def count(path, *arguments, **options):
        decoded.append(path)
        return extract(path, *arguments, **options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", count)
    root, prepared = tmp_path / "root", tmp_path / "prepared"
    # A fake of the same pixels, since the detector misses the face of one real fake.
    for source, target in arrange_uadfv(root, [(real, real) for real, _ in clips]):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    run(capfd, "prepare", "uadfv", root, "--out", prepared, *FACES)
    extracted = list(decoded)
    assert len(extracted) == len(set(extracted)) == 16
    made = run(capfd, "split", prepared, "--strategy", "kfold", "--folds", "5")["tables"]
    assert [table["name"] for table in made] == [f"kfold-{fold}-of-5" for fold in range(5)]
    tested = []
    for table in made:
        words, out = ["--split-table", table["name"]], tmp_path / table["name"]
        run(capfd, "audit", prepared, *words)
        run(capfd, "train", prepared, "--out", out / "run", *TRAIN, *words)
        run(capfd, "calibrate", out / "run", prepared, *words)
        report = run(capfd, "evaluate", out / "run", prepared, "--out", out / "report", *words)
        assert report["protocol"]["leakage"].startswith("none between training")
        assert report["protocol"]["training"]["train"]["split_table"] == table["name"]
        scores = read_scores(out / "report" / "scores.parquet")
        tested += scores.videos.video_id.tolist()
    assert decoded == extracted, "faces were extracted again"
    with_faces = [row.video_id for row in read_videos(prepared) if row.num_faces]
    assert sorted(tested) == sorted(with_faces)


@pytest.mark.slow
def test_a_set_of_real_videos_is_split_and_evaluated_and_trained_on_with_fakes_only(
    clips, roots, tmp_path, stand_in, capfd
):
    prepared, only = tmp_path / "prepared", tmp_path / "only"
    for number, (real, _) in enumerate(clips):
        (only / "real").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, only / "real" / f"{number}.mp4")
    run(capfd, "prepare", "uadfv", roots["uadfv"], "--out", prepared, *FACES)
    run(capfd, "train", prepared, "--out", tmp_path / "run", *TRAIN)
    made = run(capfd, "prepare", "folder", only, "--out", tmp_path / "one", *FACES)
    assert made["faces"] == {"real": 32, "fake": 0} and made["not_split"] == ""
    assert {name: counts["fake"] for name, counts in made["splits"].items()} == {
        "train": 0,
        "val": 0,
        "test": 0,
    }
    assert main(["train", str(tmp_path / "one"), "--out", str(tmp_path / "run-2"), *TRAIN]) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "Expected real and fake faces in the train split" in error and "--fakes mixed" in error
    assert not (tmp_path / "run-2").exists()
    trained = run(
        capfd, "train", tmp_path / "one", "--out", tmp_path / "run-2", *TRAIN, "--fakes", "local"
    )
    assert trained["validated_on"] == "blended fakes (local)"
    words = ["evaluate", tmp_path / "run", tmp_path / "one", "--out", tmp_path / "report"]
    # The clips of both are the same.
    report = run(capfd, *words, "--split", "all", "--allow-leak")
    assert (report["video"]["num_real"], report["video"]["num_fake"]) == (8, 0)
    assert report["video"]["auc"]["value"] is None
    page = (tmp_path / "report" / "report.md").read_text()
    assert "All 8 scored videos are real" in page and ", all faces" in page.splitlines()[0]


def test_a_split_table_of_ones_own_is_used_by_its_path(
    prepare_layout, tmp_path, stand_in, capfd, monkeypatch
):
    prepared = prepare_layout("uadfv").directory
    rows = sorted(row.video_id for row in read_videos(prepared))
    # Subjects 0 to 4 train, 5 validates, 6 and 7 test.
    lines = []
    for name in rows:
        number = int(name.rsplit("/", 1)[-1][:4])
        lines.append(f"{name},{'train' if number < 5 else 'val' if number < 6 else 'test'}")
    (tmp_path / "mine.csv").write_text("\n".join(["video_id,split", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    run(capfd, "train", prepared, "--out", "run", "--split-table", "mine.csv", *TRAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(capfd, "train", "--resume", "../run")
    words = ["evaluate", "../run", prepared, "--out", "report", "--overwrite", "--split-table"]
    report = run(capfd, *words, "../mine.csv")
    assert report["coverage"]["num_videos"] == 4
    assert main([*words, str(tmp_path / "other.csv")]) == 1
    assert "other.csv" in capfd.readouterr().err
    (tmp_path / "mine.csv").write_text("\n".join(["video_id,split", *lines[1:]]) + "\n")
    assert main([*words, "../mine.csv"]) == 1
    assert f"no row for {rows[0]}. It is of another dataset" in capfd.readouterr().err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wrong_folder_raises_an_error_that_names_the_expected_folders(layout, tmp_path, capfd):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.mp4").touch()
    out = tmp_path / "out"
    assert main(["prepare", layout, str(tmp_path / "holiday"), "--out", str(out)]) == 1
    error = capfd.readouterr().err
    expected = {
        "faceforensics": "original_sequences/youtube/c23/videos",
        "celebdf": "Celeb-real/, Celeb-synthesis/, YouTube-real/",
        "uadfv": "real/ (0000.mp4), fake/ (0000_fake.mp4)",
        "dfdc": "dfdc_train_part_0/",
    }
    assert expected[layout] in error
    assert "got beach.mp4" in error
    assert not out.exists()
