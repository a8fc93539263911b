"""docs/reproduction.md has every published cell, and what it says was measured is in a result."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from jdfd_keras.experiments.plan import NAMES, TABLE_1, AucRow, read_published
from jdfd_keras.options import (
    METHODS,
    ModelOptions,
    OptimizerOptions,
    list_unused,
    resolve_settings,
)
from tests.cli.test_main import commands_in, parse

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
SCORES = (ROOT / "docs/scores.md").read_text(encoding="utf-8")


def read_table(heading: str) -> pd.DataFrame:
    """Read the first table of a section, with empty cells as ""."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return pd.DataFrame(rows, columns=[f"{i} {name}" for i, name in enumerate(header)])


def cells_of(heading: str, method: str, train: str) -> dict[str, str]:
    """Return the published cells of a row of a table: key of the test dataset to text."""
    table = read_table(heading)
    names = {name.split(" ", 1)[1]: name for name in table}
    rows = table[table[names["trained on"]] == NAMES[train]]
    if "method" in names:
        rows = rows[rows[names["method"]] == method]
    (row,) = rows.to_dict("records")
    return {key: row[names[f"{name}, paper"]] for key, name in NAMES.items()}


def name_row(row: AucRow) -> str:
    return f"{row.method} {row.train} {row.test} {row.share_percent}"


@pytest.mark.parametrize("row", read_published(), ids=name_row)
def test_every_published_cell_is_on_the_page(row):
    text = "-" if row.percent is None else f"{row.percent:.1f}"
    if row.source.startswith("section 4.4"):
        table = read_table("Fig. 4")
        share, test, paper = (table[name] for name in list(table)[:3])
        found = paper[(share == f"{row.share_percent} %") & (test == NAMES[row.test])]
        assert found.tolist()[0].startswith(text)
        return
    headings = {"Table 3": row.source.endswith("3"), "Table 2": "2" in row.source}
    for heading in (name for name, is_there in headings.items() if is_there):
        if heading == "Table 2":
            heading = f"Table 2{' and Fig. 3' if row.method == 'JDFD' else ': other methods'}"
        cell = cells_of(heading, row.method, row.train)[row.test]
        assert cell.split(" ")[0] == text, heading


def test_table_1_is_on_the_page():
    table = read_table("Table 1").to_numpy().tolist()
    counts = {name: list(map(int, numbers)) for name, *numbers, _ in table}
    names = NAMES | {"ff": "FaceForensics++"}
    expected = {
        names[key]: [of[split][label] for split in ("train", "test") for label in ("real", "fake")]
        for key, of in TABLE_1.items()
    }
    assert counts == expected


def test_no_cell_on_the_papers_data_is_measured():
    for heading in ("Table 1", "Table 2 and", "Table 2: other", "Table 3", "Fig. 4"):
        table = read_table(heading)
        measured = [name for name in table if name.endswith("measured")]
        assert measured and (table[measured] == "").all(axis=None), heading


def test_small_scale_figures_are_those_of_the_linked_results():
    table = read_table("Measured at small scale")
    rows = table[table.iloc[:, 6] != ""]
    assert len(rows) == 4
    for row in rows.to_numpy().tolist():
        (target,) = re.findall(r"\]\((.*?)\)", row[6])
        result = (ROOT / "docs" / target).read_text(encoding="utf-8")
        figures = re.findall(r"[+-]?\d\.\d{3}(?: \(.*?\))?", row[3])
        assert figures and [figure for figure in figures if figure not in result] == []


def test_hours_of_a_pass_follow_from_the_measured_speed():
    (speed,) = re.findall(r"passes (\S+) faces of 299", PAGE)
    result = (ROOT / "benchmarks/results/training.md").read_text(encoding="utf-8")
    assert re.search(rf"\| from shards +\| +4 \| +\S+ \| +{re.escape(speed)} \|", result)
    hours = [sum(TABLE_1[key]["train"].values()) / float(speed) / 3600 for key in NAMES]
    ff, uadfv, celebdf = (f"{hour:.1f}" for hour in hours)
    words = " ".join(PAGE.split())
    assert f"about {ff} hours for FF++, {celebdf} for Celeb-DF and {uadfv} for UADFV" in words


@pytest.mark.parametrize("page", [PAGE, SCORES], ids=["paper", "scores"])
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", page)
    assert targets or page is SCORES
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


@pytest.mark.parametrize(("page", "count"), [(PAGE, 12), (SCORES, 7)], ids=["paper", "scores"])
def test_commands_are_parsed(page, count):
    blocks = re.findall(r"^    .*$", page, flags=re.MULTILINE)
    lines = commands_in("\n".join(blocks))
    assert len(lines) == count
    for line in lines:
        parse(shlex.split(line)[1:])


def test_the_page_of_the_methods_has_their_settings():
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    section = text.split("## Sources and settings")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(\w[\w-]+)` \| (.*) \|$", section, re.MULTILINE)
    cells = {method: cells.replace(" (not stated)", "").split(" | ") for method, cells in rows}
    assert list(cells) == list(METHODS)
    for method, (optimizer, rate, schedule, batch_size, epochs, *_) in cells.items():
        if method == "headpose":
            continue
        groups = resolve_settings({"model": ModelOptions(method=method)})
        used, train = groups["optimizer"], groups["train"]
        assert (optimizer.lower() + ",").startswith(f"{used.optimizer},")
        decay = f"weight decay {used.weight_decay:g}"
        assert (decay in optimizer) == bool(used.weight_decay)
        first, *own = re.findall(r"[\d.]+", rate)
        assert float(first) == used.learning_rate
        if (OptimizerOptions, "classifier_learning_rate") not in list_unused(method):
            assert float((own or [first])[0]) == used.classifier_learning_rate
        assert (schedule == "constant") == (used.decay_rate == 1)
        assert used.decay_rate == 1 or f"times {used.decay_rate:g} every" in schedule
        assert (int(batch_size), int(epochs)) == (train.batch_size, train.epochs)


def test_the_example_of_an_ensemble_runs(tmp_path, monkeypatch):
    from jdfd_keras.evaluation.evaluate import evaluate
    from jdfd_keras.evaluation.scores import Scores
    from jdfd_keras.evaluation.scores_file import write_scores
    from jdfd_keras.options import EvaluateOptions

    for name, score in {"a": [0.2, 0.4, 0.6, 0.8], "b": [0.4, 0.2, 0.8, 0.1]}.items():
        (tmp_path / f"report-{name}").mkdir()
        ids = {"video_id": ["r", "s", "f", "g"], "label": [0, 0, 1, 1]}
        write_scores(
            tmp_path / f"report-{name}/scores.parquet", Scores.from_faces(**ids, score=score)
        )
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", SCORES, flags=re.DOTALL)
    exec(compile(code, "docs/scores.md", "exec"), {})
    report = evaluate(
        scores="ensemble.csv",
        compare="report-a/scores.parquet",
        options=EvaluateOptions(n_resamples=0),
    )
    assert report.scores is not None and report.comparison is not None
    assert report.scores.score.tolist() == pytest.approx([0.3, 0.3, 0.7, 0.45])
    assert report.comparison.num_videos == 4
