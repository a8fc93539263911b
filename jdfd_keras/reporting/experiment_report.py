"""The figure of an experiment: what it found, put to the drawings of the room.

Takes the report of an experiment; writes Fig. 3 or Fig. 4 as .png and .svg. Draws nothing itself.

The counts of `statistics` as pages: Markdown, CSV and LaTeX.

Takes the dict that `statistics.count_sets` gives; counts nothing.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from jdfd_keras.datasets.videos import CLASSES, SPLITS
from jdfd_keras.experiments.plan import LETTERS, SHARES_PERCENT
from jdfd_keras.experiments.results import read_cell_scores
from jdfd_keras.experiments.sets import end_page, name_set
from jdfd_keras.experiments.statistics import ALL, find_count
from jdfd_keras.reporting import markdown
from jdfd_keras.reporting.experiment_tables import escape, latex_table


def draw(report: dict, out: Path, sets: Mapping | None = None) -> str | None:
    """Draw what belongs to an experiment.

    Args:
        report: As `summarize` gives it.
        out: The folder.
        sets: Not needed; the samples of `statistics` are.

    Returns:
        The name of the .png; None where there is no figure, or nothing to draw.
    """
    drawings = {"cross-dataset": draw_curves, "foreign-data": draw_shares}
    if report["experiment"] not in drawings:
        return None
    return drawings[report["experiment"]](report, out)


def draw_curves(report: dict, out: Path) -> str | None:
    """Draw a ROC curve of each cell, named as in Fig. 3.

    `(U, F)` is trained on UADFV and tested on FF++. Of several seeds, the curves
    are of the first one that every cell has.
    """
    from jdfd_keras.reporting.curves import Curve, plot_roc

    found = {
        (row["data"], test): {result["seed"]: result for result in cell["results"]}
        for row in report["rows"]
        for test, cell in row["cells"].items()
        if cell["results"]
    }
    shared = [
        seed for seed in report["protocol"]["seeds"] if all(seed in own for own in found.values())
    ]
    if not found or not shared:
        return None
    seed, curves = shared[0], []
    for (train, test), results in found.items():
        scores = read_cell_scores(out / results[seed]["report"])
        name = f"({LETTERS.get(train, train)}, {LETTERS.get(test, test)})"
        curves.append(Curve(name, scores.label, scores.score))
    plot_roc(out / report["experiment"], curves, title=f"(trained on, tested on), seed {seed}")
    return f"{report['experiment']}.png"


def draw_shares(report: dict, out: Path) -> str | None:
    """Draw the AUC against the share of foreign data, and what the paper says of it."""
    from jdfd_keras.reporting.charts import plot_foreign_shares

    by_share = {row["share_percent"]: row["cells"] for row in report["rows"]}
    series, published = {}, {}
    for test in report["tests"]:
        cells = [by_share[share][test] for share in SHARES_PERCENT]
        ours = [_point(cell["frame"]) for cell in cells]
        theirs = [_first_published(cell) for cell in cells]
        if any(ours):
            series[name_set(test)] = ours
        if any(theirs):
            published[name_set(test)] = theirs
    if not series:
        return None
    plot_foreign_shares(
        out / report["experiment"],
        [share / 100 for share in SHARES_PERCENT],
        series,
        published,
        title=f"Trained on {name_set(report['rows'][0]['data'])}, tested on each",
    )
    return f"{report['experiment']}.png"


def _point(frame: dict | None) -> tuple[float, float | None] | None:
    if frame is None:
        return None
    spread = frame["spread_percent"]
    return frame["mean_percent"] / 100, None if spread is None else spread / 100


def _first_published(cell: dict) -> float | None:
    return cell["published"][0]["percent"] / 100 if cell["published"] else None


COLUMNS = ("kind", "data", "split", "label", "manipulation", "faces", "videos", "source")
NOT_THERE = "not there"


def render_markdown(report: dict) -> str:
    """Write the counts as a person reads them; a line feed is at the end."""
    rows, manipulations = [], []
    for entry in report["sets"]:
        for split in SPLITS:
            cells = [_cell(entry, split, label) for label in CLASSES]
            videos = [_count(entry, split, label, "videos") for label in CLASSES]
            rows.append((name_set(entry["key"]), split, *cells, *videos))
        for name in _name_manipulations(entry):
            faces = [_count(entry, split, "fake", "faces", name) for split in SPLITS]
            manipulations.append((name_set(entry["key"]), name, *faces))
    header = ("Data set", "Split", "Real faces", "Fake faces", "Real videos", "Fake videos")
    sections = [f"# {report['title']}", markdown.table(header, rows, "llrrrr")]
    if manipulations:
        sections.append("## Fake faces by manipulation")
        sections.append(
            markdown.table(("Data set", "Manipulation", *SPLITS), manipulations, "llrrr")
        )
    if report.get("figure"):
        sections.append("## Samples (the paper's Fig. 2)")
        sections.append(f"![Faces of each data set and manipulation]({report['figure']})")
    return "\n\n".join([*sections, *end_page(report, "Missing")]) + "\n"


def render_csv(report: dict) -> str:
    """Write one row for each count and each published figure."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in report["sets"]:
        about = {"data": entry["key"]}
        for count in entry["counts"] or ():
            writer.writerow({"kind": "measured"} | about | count)
        for split, labels in (entry["published"] or {}).items():
            for label, faces in labels.items():
                figure = {"split": split, "label": label, "manipulation": ALL, "faces": faces}
                writer.writerow({"kind": "published", "source": "Table 1"} | about | figure)
    for reason in report.get("failed", ()):
        writer.writerow({"kind": "failed", "source": " ".join(reason.split())})
    return file.getvalue()


def render_latex(report: dict) -> str:
    """Write the table for a paper; ours and its figures stand in columns of their own."""
    blocks = []
    for entry in report["sets"]:
        block = []
        for split in SPLITS:
            cells = [name_set(entry["key"]), split]
            for label in CLASSES:
                cells += [_count(entry, split, label, "faces"), _published(entry, split, label)]
            block.append([escape(cell) for cell in cells])
        blocks.append(block)
    return latex_table(
        [("", 1), ("", 1), ("Real", 2), ("Fake", 2)],
        ["Data set", "Split", *["ours", "paper"] * 2],
        blocks,
        caption=escape(f"{report['title']}; it has none for validation."),
        label=f"tab:{report['experiment']}",
        num_text=2,
        notes=[*report["notes"], *report.get("failed", ())],
    )


def _cell(entry: dict, split: str, label: str) -> str:
    published = _published(entry, split, label)
    ours = _count(entry, split, label, "faces")
    return f"{ours}; paper {published}" if published else ours


def _published(entry: dict, split: str, label: str) -> str:
    there = (entry["published"] or {}).get(split)
    return str(there[label]) if there else ""


def _count(entry: dict, split: str, label: str, unit: str, manipulation: str = ALL) -> str:
    if entry["counts"] is None:
        return NOT_THERE
    return str(find_count(entry["counts"], split, label, manipulation)[unit])


def _name_manipulations(entry: dict) -> list[str]:
    fakes = [count for count in entry["counts"] or () if count["label"] == "fake"]
    return sorted({count["manipulation"] for count in fakes} - {ALL, ""})
