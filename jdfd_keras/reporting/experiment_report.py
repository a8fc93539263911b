"""Writing an experiment to a folder: tables in four formats, a figure, the pages of its cells.

    <out>/<name>.md, .html     the page: tables, figure and notes
    <out>/<name>.csv, .tex     the tables
    <out>/<name>.json          the report
    <out>/<name>.png, .svg     Fig. 2, 3 or 4 of the paper with these results
    <out>/cells/.../report.html   one page per cell

Takes the `ExperimentReport` that `experiment` returns; trains and evaluates nothing.
"""

import csv
import dataclasses
import io
import json
from pathlib import Path

from jdfd_keras.datasets.videos import CLASSES, SPLITS
from jdfd_keras.evaluation.evaluate_scores import SCORES, load_report
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.experiments.cells import (
    AucReport,
    AucSummary,
    ReportCell,
)
from jdfd_keras.experiments.plan import LETTERS, SHARES_PERCENT
from jdfd_keras.experiments.sets import ExperimentReport, dataset_name
from jdfd_keras.experiments.statistics import ALL, CountReport, DatasetCounts
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.reporting import experiment_tables, markdown
from jdfd_keras.reporting.experiment_tables import closing_sections, escape, latex_table

FORMATS = ("md", "html", "csv", "tex", "json")


def write_experiment(report: ExperimentReport, out: str | Path) -> ExperimentReport:
    """Write the tables and the figure of an experiment, and the pages of its cells.

    Args:
        report: As `experiment` returns it.
        out: Folder of the experiment; created if missing, files of these names are replaced.

    Returns:
        The report as NAME.json holds it: with `files`, `figure` and, if the figure or the page of
        a cell could not be drawn, the reason in `failed`.

    Raises:
        OSError: If a table cannot be written.

    Example:
        >>> report = experiment("statistics", {"ff": "prepared"}, "out")  # doctest: +SKIP
        >>> write_experiment(report, "out").files  # doctest: +SKIP
        ('statistics.md', 'statistics.html', 'statistics.csv', 'statistics.tex', 'statistics.json')
    """
    out, name = Path(out), report.experiment
    out.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        (out / f"{name}{suffix}").unlink(missing_ok=True)  # of an earlier call
    figure, failed = None, list(report.failed)
    try:
        figure = draw_figure(report, out)
    except (OSError, ValueError) as error:  # the tables are still useful
        failed.append(f"figure: {error}")
    if isinstance(report, AucReport):
        failed += write_cell_pages(report, out)
    report = dataclasses.replace(
        report,
        figure=figure,
        failed=tuple(failed),
        files=tuple(f"{name}.{suffix}" for suffix in FORMATS),
    )
    if isinstance(report, CountReport):
        page, table, latex = count_markdown(report), count_csv(report), count_latex(report)
    else:
        page = experiment_tables.render_markdown(report)
        table = experiment_tables.render_csv(report)
        latex = experiment_tables.render_latex(report)
    write_text_atomically(out / f"{name}.md", page)
    markdown.write_page(out / f"{name}.html", page)
    write_text_atomically(out / f"{name}.csv", table)
    write_text_atomically(out / f"{name}.tex", latex)
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    write_text_atomically(out / f"{name}.json", text + "\n")
    return report


def write_cell_pages(report: AucReport, out: Path) -> list[str]:
    """Write the page of each evaluated cell that has none.

    Returns:
        One sentence for each page that could not be written.

    Example:
        >>> failed = write_cell_pages(report, Path("out"))  # doctest: +SKIP
    """
    from jdfd_keras.reporting.evaluation_folder import write_pages

    failed = []
    for result in (r for row in report.rows for cell in row.cells.values() for r in cell.results):
        folder = out / result.report
        if (folder / "report.html").is_file():
            continue
        try:
            scores = read_scores(folder / SCORES)
            write_pages(dataclasses.replace(load_report(folder), scores=scores), folder)
        except (OSError, ValueError) as error:
            failed.append(f"page of {result.report}: {error}")
    return failed


def draw_figure(report: ExperimentReport, out: Path) -> str | None:
    """Draw the figure of an experiment as .png and .svg.

    Args:
        report: As `experiment` returns it.
        out: Folder of the experiment.

    Returns:
        The name of the .png; None if the experiment has no figure, or nothing to draw.

    Raises:
        OSError: If the scores of a cell do not exist, or the figure cannot be written.
        ValueError: If they are damaged.

    Example:
        >>> draw_figure(experiment("cross-dataset", data, "out"), Path("out"))  # doctest: +SKIP
        'cross-dataset.png'
    """
    if isinstance(report, CountReport):
        is_drawn = _draw_samples(report, out)
    elif report.experiment == "cross-dataset":
        is_drawn = _draw_curves(report, out)
    else:
        is_drawn = report.experiment == "foreign-data" and _draw_shares(report, out)
    return f"{report.experiment}.png" if is_drawn else None


def _draw_samples(report: CountReport, out: Path) -> bool:
    """Draw faces of each dataset, real ones and each manipulation, as in Fig. 2."""
    from jdfd_keras.reporting.face_grids import plot_samples

    if report.samples:
        plot_samples(out / report.experiment, report.samples)
    return bool(report.samples)


def _draw_curves(report: AucReport, out: Path) -> bool:
    """Draw a ROC curve for each cell, named as in Fig. 3.

    `(U, F)` is trained on UADFV and tested on FF++. The curves are of the first seed that all
    cells have.
    """
    from jdfd_keras.reporting.curves import Curve, plot_roc

    by_cell = {
        (row.training.data, test): {result.seed: result for result in cell.results}
        for row in report.rows
        for test, cell in row.cells.items()
        if cell.results
    }
    shared = [s for s in report.protocol.seeds if all(s in results for results in by_cell.values())]
    if not by_cell or not shared:
        return False
    seed, curves = shared[0], []
    for (train, test), results in by_cell.items():
        scores = read_scores(out / results[seed].report / SCORES)
        name = f"({LETTERS.get(train, train)}, {LETTERS.get(test, test)})"
        curves.append(Curve(name, scores.label, scores.score))
    plot_roc(out / report.experiment, curves, title=f"(trained on, tested on), seed {seed}")
    return True


def _draw_shares(report: AucReport, out: Path) -> bool:
    """Draw the AUC against the share of foreign data, and the paper's AUCs, as in Fig. 4."""
    from jdfd_keras.reporting.charts import plot_foreign_shares

    by_share = {row.training.share_percent: row.cells for row in report.rows}
    series, published = {}, {}
    for test in report.tests:
        cells = [by_share[share][test] for share in SHARES_PERCENT]
        ours = [_to_point(cell.frame) for cell in cells]
        theirs = [_first_published(cell) for cell in cells]
        if any(ours):
            series[dataset_name(test)] = ours
        if any(theirs):
            published[dataset_name(test)] = theirs
    if not series:
        return False
    plot_foreign_shares(
        out / report.experiment,
        [share / 100 for share in SHARES_PERCENT],
        series,
        published,
        title=f"Trained on {dataset_name(report.rows[0].training.data)}, tested on each",
    )
    return True


def _to_point(auc: AucSummary | None) -> tuple[float, float | None] | None:
    if auc is None:
        return None
    return auc.mean_percent / 100, None if auc.std_percent is None else auc.std_percent / 100


def _first_published(cell: ReportCell) -> float | None:
    return cell.published[0].percent / 100 if cell.published else None


COLUMNS = ("kind", "data", "split", "label", "manipulation", "faces", "videos", "source")
MISSING = "missing"


def count_markdown(report: CountReport) -> str:
    """Return the page of `statistics` as Markdown."""
    rows, manipulations = [], []
    for entry in report.sets:
        name = dataset_name(entry.key)
        for split in SPLITS:
            faces = [_beside_published(entry, split, label) for label in CLASSES]
            videos = [_num_videos(entry, split, label) for label in CLASSES]
            rows.append((name, split, *faces, *videos))
        for manipulation in _list_manipulations(entry):
            faces = [_num_faces(entry, split, "fake", manipulation) for split in SPLITS]
            manipulations.append((name, manipulation, *faces))
    header = ("Dataset", "Split", "Real faces", "Fake faces", "Real videos", "Fake videos")
    sections = [f"# {report.title}", markdown.table(header, rows, "llrrrr")]
    if manipulations:
        header = ("Dataset", "Manipulation", *SPLITS)
        sections.append("## Fake faces by manipulation")
        sections.append(markdown.table(header, manipulations, "llrrr"))
    if report.figure:
        sections.append("## Samples (the paper's Fig. 2)")
        sections.append(f"![Faces of each dataset and manipulation]({report.figure})")
    return "\n\n".join([*sections, *closing_sections(report)]) + "\n"


def count_csv(report: CountReport) -> str:
    """Return CSV with one row per count, per published count and per failure."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in report.sets:
        for count in entry.counts or ():
            manipulation = ALL if count.manipulation is None else count.manipulation
            group = (entry.key, count.split, count.label, manipulation)
            row = ("measured", *group, count.num_faces, count.num_videos)
            writer.writerow(dict(zip(COLUMNS, row, strict=False)))
        for split, labels in (entry.published or {}).items():
            for label, faces in labels.items():
                row = ("published", entry.key, split, label, ALL, faces, "", "Table 1")
                writer.writerow(dict(zip(COLUMNS, row, strict=True)))
    for reason in report.failed:
        writer.writerow({"kind": "failed", "source": " ".join(reason.split())})
    return file.getvalue()


def count_latex(report: CountReport) -> str:
    """Return the table of faces as LaTeX, with our and the paper's counts side by side."""
    blocks = []
    for entry in report.sets:
        block = []
        for split in SPLITS:
            cells = [dataset_name(entry.key), split]
            for label in CLASSES:
                cells += [_num_faces(entry, split, label), _published(entry, split, label)]
            block.append([escape(cell) for cell in cells])
        blocks.append(block)
    return latex_table(
        [("", 1), ("", 1), ("Real", 2), ("Fake", 2)],
        ["Dataset", "Split", *["ours", "paper"] * 2],
        blocks,
        caption=escape(f"{report.title}; the paper has no validation split."),
        label=f"tab:{report.experiment}",
        num_text=2,
        notes=[*report.notes, *report.failed],
    )


def _beside_published(entry: DatasetCounts, split: str, label: str) -> str:
    ours, published = _num_faces(entry, split, label), _published(entry, split, label)
    return f"{ours}; paper {published}" if published else ours


def _published(entry: DatasetCounts, split: str, label: str) -> str:
    labels = (entry.published or {}).get(split)
    return str(labels[label]) if labels else ""


def _num_faces(
    entry: DatasetCounts, split: str, label: str, manipulation: str | None = None
) -> str:
    if entry.counts is None:
        return MISSING
    return str(entry.find(split, label, manipulation).num_faces)


def _num_videos(entry: DatasetCounts, split: str, label: str) -> str:
    return MISSING if entry.counts is None else str(entry.find(split, label).num_videos)


def _list_manipulations(entry: DatasetCounts) -> list[str]:
    fakes = [count for count in entry.counts or () if count.label == "fake"]
    return sorted({count.manipulation for count in fakes if count.manipulation})
