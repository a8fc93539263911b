"""Counts of prepared datasets, against their manifests read row by row, and the paper's."""

import csv
import io
import re
import shutil
from collections import Counter

import pytest

from jdfd_keras.datasets.manifest import read_manifest
from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.experiments.plan import TABLE_1
from jdfd_keras.reporting.experiment_report import MISSING, write_experiment
from jdfd_keras.reporting.experiment_tables import escape

NAMES = {"FF++": "ff", "UADFV": "uadfv", "Celeb-DF": "celebdf"}


@pytest.fixture(scope="module")
def written(three_sets, tmp_path_factory):
    """The folder of the experiment and its report."""
    out = tmp_path_factory.mktemp("statistics")
    return out, write_experiment(experiment("statistics", three_sets, out), out)


def test_counts_equal_those_of_the_manifests(written, three_sets):
    out, _ = written
    rows = list(csv.DictReader(io.StringIO((out / "statistics.csv").read_text())))
    for key, directory in three_sets.items():
        faces = read_manifest(directory)
        own = [row for row in rows if (row["kind"], row["data"]) == ("measured", key)]
        totals = {(r["split"], r["label"]): r for r in own if r["manipulation"] == "all"}
        expected = Counter((face.split, "fake" if face.label else "real") for face in faces)
        assert {group: int(row["faces"]) for group, row in totals.items()} == expected
        videos = {(face.split, "fake" if face.label else "real", face.video_id) for face in faces}
        assert {group: int(row["videos"]) for group, row in totals.items()} == Counter(
            video[:2] for video in videos
        )
        single = [int(row["faces"]) for row in own if row["manipulation"] != "all"]
        assert sum(single) == len(faces)


def test_the_papers_counts_are_shown_beside_ours(written):
    out, report = written
    page = (out / "statistics.md").read_text()
    found = {}
    for name, split, real, fake in re.findall(
        r"^\| (\S+) \| (\w+) \| \d+; paper (\d+) \| \d+; paper (\d+) \|", page, flags=re.MULTILINE
    ):
        found.setdefault(NAMES[name], {})[split] = {"real": int(real), "fake": int(fake)}
    assert found == TABLE_1
    assert "The paper has no validation faces" in page
    assert re.search(r"^\| FF\+\+ \| val \| \d+ \| \d+ \|", page, flags=re.MULTILINE)
    rows = list(csv.DictReader(io.StringIO((out / "statistics.csv").read_text())))
    published = [row for row in rows if row["kind"] == "published"]
    assert sum(int(row["faces"]) for row in published) == 279885 + 282216 + 49369 + 49826


def test_the_figure_shows_faces_of_each_dataset_and_class(
    written, monkeypatch, three_sets, tmp_path
):
    out, report = written
    assert report.figure == "statistics.png"
    assert (out / "statistics.png").read_bytes()[:4] == b"\x89PNG"
    assert "(statistics.png)" in (out / "statistics.md").read_text()
    page = (out / "statistics.html").read_text()
    assert "data:image/" in page and "20795" in page
    shown = []

    def plot(path, rows, **_):
        shown.append(rows)
        path.with_suffix(".png").write_bytes((out / "statistics.png").read_bytes())

    monkeypatch.setattr("jdfd_keras.reporting.face_grids.plot_samples", plot)
    write_experiment(experiment("statistics", three_sets, tmp_path), tmp_path)
    assert list(shown[0]) == [
        f"{name} {label}" for name in ("FF++", "UADFV", "Celeb-DF") for label in ("real", "fake")
    ]
    assert all(len(faces) == 8 for faces in shown[0].values())
    assert all(face.shape == (71, 71, 3) for faces in shown[0].values() for face in faces)


def test_latex_rows_fill_the_columns(written):
    text = (written[0] / "statistics.tex").read_text()
    rows = [line[:-3].split(" & ") for line in text.splitlines() if line.endswith(r" \\")]
    assert all(len(row) == 6 for row in rows[1:]) and len(rows) == 2 + 9
    assert rows[2][:2] == ["FF++", "train"] and rows[2][3::2] == ["117218", "124429"]
    assert rows[3][1] == "val" and rows[3][3::2] == ["", ""]
    assert text.count(r"\midrule") == 3


def test_a_missing_or_damaged_dataset_is_listed_and_not_counted(three_sets, tmp_path):
    shutil.copytree(three_sets["uadfv"], tmp_path / "uadfv")
    (table,) = (tmp_path / "uadfv").glob("manifest.*")
    table.write_bytes(table.read_bytes()[:-99])
    sets = {"ff": three_sets["ff"], "uadfv": tmp_path / "uadfv", "celebdf": tmp_path / "no"}
    report = write_experiment(experiment("statistics", sets, tmp_path / "out"), tmp_path / "out")
    assert len(report.failed) == 2
    assert any("dataset uadfv cannot be counted" in reason for reason in report.failed)
    assert any(f"{tmp_path / 'no'} does not exist" in reason for reason in report.failed)
    page = (tmp_path / "out/statistics.md").read_text()
    row = "| UADFV | train | missing; paper 9881 | missing; paper 9886 | missing | missing |"
    assert row in page
    assert MISSING in (tmp_path / "out/statistics.tex").read_text()
    assert escape(MISSING) == MISSING


def test_without_any_dataset_there_is_no_figure_and_no_count(tmp_path):
    report = write_experiment(experiment("statistics", {}, tmp_path / "out"), tmp_path / "out")
    assert report.figure is None and len(report.failed) == 3
    assert "Samples" not in (tmp_path / "out/statistics.md").read_text()
