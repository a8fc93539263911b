"""Counts of prepared datasets, against their manifests read row by row, and the paper's."""

import csv
import dataclasses
import io
import re
import shutil
from collections import Counter

import pytest

from jdfd_keras.datasets.manifest import FaceRow, read_faces, to_rows
from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.experiments.plan import TABLE_1
from jdfd_keras.experiments.statistics import CountRow
from jdfd_keras.reporting.experiment_report import write_experiment

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
        faces = to_rows(read_faces(directory), FaceRow)
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


def test_excluded_faces_are_not_counted(three_sets, tmp_path):
    shutil.copytree(three_sets["uadfv"], tmp_path / "uadfv")
    path = tmp_path / "uadfv" / "splits" / "official.csv"
    path.write_text(path.read_text().replace(",test,", ",,"))
    report = experiment("statistics", {"uadfv": tmp_path / "uadfv"}, tmp_path / "out")
    assert {row.split for row in report.results if row.kind == "measured"} == {"train", "val"}


def read_table(page):
    """Read the first table of a Markdown page: its rows of cells by dataset and split."""
    lines = page.split("\n\n")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {(NAMES[name], split): cells for name, split, *cells in rows}


def test_the_papers_counts_are_shown_beside_ours(written):
    out, _ = written
    page = (out / "statistics.md").read_text()
    found = {}
    for (key, split), cells in read_table(page).items():
        if split == "val":  # the paper has none
            assert all(re.fullmatch(r"\d+", cell) for cell in cells)
        else:
            real, fake = (int(re.fullmatch(r"\d+; paper (\d+)", cell)[1]) for cell in cells[:2])
            found.setdefault(key, {})[split] = {"real": real, "fake": fake}
    assert found == TABLE_1
    rows = list(csv.DictReader(io.StringIO((out / "statistics.csv").read_text())))
    published = [row for row in rows if row["kind"] == "published"]
    assert sum(int(row["faces"]) for row in published) == 279885 + 282216 + 49369 + 49826


def test_the_figure_shows_faces_of_each_dataset_and_class(written, three_sets):
    out, report = written
    assert report.figure == "statistics.png"
    assert (out / "statistics.png").read_bytes()[:4] == b"\x89PNG"
    assert "(statistics.png)" in (out / "statistics.md").read_text()
    page = (out / "statistics.html").read_text()
    assert "data:image/" in page and "20795" in page
    samples = experiment("statistics", three_sets, out).samples
    assert list(samples) == [
        f"{name} {label}" for name in ("FF++", "UADFV", "Celeb-DF") for label in ("real", "fake")
    ]
    assert all(len(faces) == 8 for faces in samples.values())
    assert all(face.shape == (71, 71, 3) for faces in samples.values() for face in faces)


def test_latex_has_a_row_for_each_dataset_and_split(written):
    text = (written[0] / "statistics.tex").read_text()
    body = text[text.index(r"\toprule") :]
    rows = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if " & " in line]
    assert len(rows) == 2 + 9
    assert rows[2][:2] == ["FF++", "train"] and rows[2][3::2] == ["117218", "124429"]
    assert rows[3][1] == "val" and [cell.strip() for cell in rows[3][3::2]] == ["", ""]


def test_a_missing_or_damaged_dataset_is_listed_and_not_counted(three_sets, tmp_path):
    shutil.copytree(three_sets["uadfv"], tmp_path / "uadfv")
    table = tmp_path / "uadfv" / "manifest.parquet"
    table.write_bytes(table.read_bytes()[:-99])
    sets = {"ff": three_sets["ff"], "uadfv": tmp_path / "uadfv", "celebdf": tmp_path / "no*"}
    report = write_experiment(experiment("statistics", sets, tmp_path / "out"), tmp_path / "out")
    assert len(report.failed) == 2
    assert any("uadfv cannot be read" in reason for reason in report.failed)
    assert any(f"{tmp_path / 'no*'} does not exist" in reason for reason in report.failed)
    page = (tmp_path / "out/statistics.md").read_text()
    assert r"no\* does not exist" in page
    row = read_table(page)["uadfv", "train"]
    assert row == ["missing; paper 9881", "missing; paper 9886", "missing", "missing"]
    assert "& missing & 9881 & missing & 9886" in (tmp_path / "out/statistics.tex").read_text()


def test_a_manipulation_is_shown_literally(written, tmp_path):
    row = CountRow(kind="measured", data="ff", split="test", manipulation="a|_b_", faces=3)
    report = dataclasses.replace(written[1], results=(*written[1].results, row))
    write_experiment(report, tmp_path)
    assert r"| a\|\_b\_ " in (tmp_path / "statistics.md").read_text()


def test_without_any_dataset_there_is_no_figure_and_no_count(tmp_path):
    report = write_experiment(experiment("statistics", {}, tmp_path / "out"), tmp_path / "out")
    assert report.figure is None and len(report.failed) == 3
    assert "Samples" not in (tmp_path / "out/statistics.md").read_text()
