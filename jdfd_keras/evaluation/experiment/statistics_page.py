"""The counts of `statistics` as pages: Markdown, CSV and LaTeX.

Takes the dict that `statistics.count_sets` gives; counts nothing.
"""

import csv
import io

from jdfd_keras import markdown
from jdfd_keras.data.videos import CLASSES, SPLITS
from jdfd_keras.evaluation.experiment import latex
from jdfd_keras.evaluation.experiment.notes import end_page
from jdfd_keras.evaluation.experiment.sets import name_set
from jdfd_keras.evaluation.experiment.statistics import ALL, find_count

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
            block.append([latex.escape(cell) for cell in cells])
        blocks.append(block)
    return latex.table(
        [("", 1), ("", 1), ("Real", 2), ("Fake", 2)],
        ["Data set", "Split", *["ours", "paper"] * 2],
        blocks,
        caption=latex.escape(f"{report['title']}; it has none for validation."),
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
