"""Writing an experiment to a folder: tables in four formats, a figure, the pages of its cells.

NAME.md and NAME.html hold the tables, figure and protocol; NAME.csv one row per result; NAME.tex
the table with our and the paper's values side by side; NAME.json the report; NAME.png and NAME.svg
Fig. 2, 3 or 4 of the paper with these results; cells/.../report.html the page of one cell.
"""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from jdfd_keras.datasets.videos import CLASSES, SPLITS
from jdfd_keras.evaluation.report import SCORES, load_report
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.experiments.experiment import AucReport
from jdfd_keras.experiments.plan import LETTERS, OUR_METHOD, OURS, SHARES_PERCENT
from jdfd_keras.experiments.sets import dataset_name
from jdfd_keras.experiments.statistics import ALL, CountReport
from jdfd_keras.io.console import csv_text
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.options import SPLIT_EXPERIMENTS
from jdfd_keras.reporting.result_tables import (
    METHOD,
    describe_experiment,
    describe_methods,
    format_auc,
    list_unscored,
    render_split_aucs,
    to_latex,
    to_markdown,
)
from jdfd_keras.reporting.templating import render_template, write_page

FORMATS = ("md", "html", "csv", "tex", "json")
MISSING = "missing"
TRAIN_DATA, SHARE = "Train data", "Unlabelled share of each other dataset"
ROW_LABELS = {
    "cross-dataset": [METHOD, TRAIN_DATA],
    "ablation": [TRAIN_DATA, METHOD],
    "foreign-data": [TRAIN_DATA, SHARE],
}
MARKS = {"": "{}", "bold": "**{}**", "underlined": "*{}*"}  # Markdown cannot underline


def write_experiment(report: AucReport | CountReport, out: str | Path) -> AucReport | CountReport:
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
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> report = experiment("statistics", {"ff": "prepared"}, "experiments")
        >>> write_experiment(report, "experiments").files
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
        failed += _write_cell_pages(report, out)
    report = dataclasses.replace(
        report,
        figure=figure,
        failed=tuple(failed),
        files=tuple(f"{name}.{suffix}" for suffix in FORMATS),
    )
    if isinstance(report, CountReport):
        page, latex = _render_counts(report)
    elif name in SPLIT_EXPERIMENTS:
        page, latex = render_split_aucs(report)
    else:
        page, latex = _render_aucs(report)
    write_text_atomically(out / f"{name}.md", page)
    write_page(out / f"{name}.html", page)
    rows = _to_frame(report)
    table = rows.map(lambda value: csv_text(value) if isinstance(value, str) else value)
    table = table.convert_dtypes()
    write_text_atomically(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text_atomically(out / f"{name}.tex", latex)
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    write_text_atomically(out / f"{name}.json", text + "\n")
    return report


def _to_frame(report: AucReport | CountReport) -> pd.DataFrame:
    return pd.DataFrame([row.to_dict() for row in report.results])


def _write_cell_pages(report: AucReport, out: Path) -> list[str]:
    """Write the page of each evaluated cell that has none; return why some cannot be written."""
    from jdfd_keras.reporting.evaluation_folder import write_pages

    failed = []
    for source in dict.fromkeys(row.source for row in report.results if row.kind == "measured"):
        folder = out / source
        if (folder / "report.html").is_file():
            continue
        try:
            scores = read_scores(folder / SCORES)
            write_pages(dataclasses.replace(load_report(folder), scores=scores), folder)
        except (OSError, ValueError) as error:
            failed.append(f"page of {source}: {error}")
    return failed


def draw_figure(report: AucReport | CountReport, out: Path) -> str | None:
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
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> draw_figure(experiment("statistics", {"ff": "prepared"}, "."), Path("."))
        'statistics.png'
    """
    from jdfd_keras.reporting.face_grids import SheetFace, SheetRow, draw_sheet

    path = out / report.experiment
    if isinstance(report, CountReport):
        if report.samples:
            rows = {name: list(map(SheetFace, faces)) for name, faces in report.samples.items()}
            draw_sheet(path, [SheetRow(name, [], faces) for name, faces in rows.items()])
        is_drawn = bool(report.samples)
    elif report.experiment == "cross-dataset":
        is_drawn = _draw_curves(report, out)
    else:
        is_drawn = report.experiment == "foreign-data" and _draw_shares(report, out)
    return f"{path.name}.png" if is_drawn else None


def _draw_curves(report: AucReport, out: Path) -> bool:
    """Draw a ROC curve for each cell of our method, of the first seed that all of these have.

    They are named as in Fig. 3: `(U, F)` is trained on UADFV and tested on FF++.
    """
    from jdfd_keras.reporting.curves import Curve, draw_roc
    from jdfd_keras.reporting.style import save_figure

    cells: dict[int | None, dict[str, str]] = {}
    for row in report.results:
        if row.kind == "measured" and row.method_key == OUR_METHOD:
            name = f"({LETTERS.get(row.train, row.train)}, {LETTERS.get(row.test, row.test)})"
            cells.setdefault(row.seed, {})[name] = row.source
    num_cells = len({name for own in cells.values() for name in own})
    seeds = [s for s in report.protocol.seeds if s in cells and len(cells[s]) == num_cells]
    if not seeds:
        return False
    curves = []
    for name, source in cells[seeds[0]].items():
        scores = read_scores(out / source / SCORES)
        curves.append(Curve(name, scores.label, scores.score))
    title = f"(trained on, tested on), seed {seeds[0]}"
    if report.protocol.methods:
        title = f"{OURS} {title}"
    save_figure(draw_roc(curves, title=title), out / report.experiment)
    return True


def _draw_shares(report: AucReport, out: Path) -> bool:
    """Draw the AUC against the share of foreign data, and the paper's AUCs, as in Fig. 4."""
    from jdfd_keras.reporting.charts import draw_foreign_shares
    from jdfd_keras.reporting.style import save_figure

    aucs: dict[str, dict[str, dict[int, list[float]]]] = {"measured": {}, "published": {}}
    for row in report.results:
        if row.metric == "frame_auc" and row.percent is not None:
            line = aucs[row.kind].setdefault(dataset_name(row.test), {})
            line.setdefault(row.share_percent, []).append(row.percent / 100)
    if not aucs["measured"]:
        return False

    def summarize(values: list[float]) -> tuple[float, float | None]:
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None

    series = {
        test: [summarize(line[share]) if share in line else None for share in SHARES_PERCENT]
        for test, line in aucs["measured"].items()
    }
    published = {
        test: [line[share][0] if share in line else None for share in SHARES_PERCENT]
        for test, line in aucs["published"].items()
    }
    shares = [share / 100 for share in SHARES_PERCENT]
    title = f"Trained on {dataset_name(report.results[0].train)}, tested on each"
    figure = draw_foreign_shares(shares, series, published, title=title)
    save_figure(figure, out / report.experiment)
    return True


def _render_aucs(report: AucReport) -> tuple[str, str]:
    """Return the page of an experiment as Markdown, and its table as LaTeX."""
    labels = ROW_LABELS[report.experiment]
    rows = _to_frame(report)
    if report.experiment != "cross-dataset":
        rows["mark"] = ""
    rows[METHOD], rows[TRAIN_DATA] = rows.method, rows.train.map(dataset_name)
    rows[SHARE] = rows.share_percent.map("{} %".format)
    rows["Test data"] = rows.test.map(dataset_name)
    index = pd.MultiIndex.from_frame(rows.loc[:, labels].drop_duplicates())
    write_ours = functools.partial(format_auc, num_seeds=len(report.protocol.seeds))

    def pivot(rows: pd.DataFrame, write: Callable[[pd.DataFrame], str]) -> pd.DataFrame:
        groups = rows.groupby([*labels, "Test data"], sort=False)
        texts = pd.Series({key: write(group) for key, group in groups}).unstack(fill_value="")
        return texts.reindex(index=index, columns=tests, fill_value="")

    tests = rows["Test data"].unique()
    is_published, is_video = rows.kind == "published", rows.metric == "video_auc"
    ours = pivot(rows.loc[~is_published & ~is_video], write_ours)
    videos = pivot(rows.loc[is_video | (rows.kind == "failed")], write_ours)
    paper = pivot(rows.loc[is_published], _format_published)
    protocol = describe_experiment(report)
    caption = render_template("experiment_caption.md.j2", report=report).strip()
    page = render_template(
        "experiment.md.j2",
        report=report,
        caption=caption,
        frames=to_markdown(_in_columns(ours, paper), numbers="right")
        if report.protocol.methods
        else to_markdown(_beside(ours, paper), numbers="left"),
        videos=to_markdown(videos.loc[(videos != "").any(axis=1)], numbers="left"),
        methods=describe_methods(report),
        unscored=list_unscored(report),
        protocol=protocol,
    )
    return page, to_latex(report, ours, paper, f"{report.title}. {caption}", protocol)


def _format_published(rows: pd.DataFrame) -> str:
    texts = []
    for row in rows.to_dict("records"):
        text = "-" if np.isnan(row["percent"]) else f"{row['percent']:.1f}"
        text = MARKS[row["mark"]].format(text)
        texts.append(f"{text} ({row['source']})" if len(rows) > 1 else text)
    return " / ".join(texts)


def _render_counts(report: CountReport) -> tuple[str, str]:
    """Return the page of `statistics` as Markdown, and its table as LaTeX."""
    rows = _to_frame(report).rename(columns={"split": "Split", "manipulation": "Manipulation"})
    names = [dataset_name(key) for key in report.keys]
    rows["Dataset"] = pd.Categorical(rows.data.map(dataset_name), names)  # sorted in this order
    index = pd.MultiIndex.from_product([names, SPLITS], names=["Dataset", "Split"])

    def pivot(rows: pd.DataFrame, values: str) -> pd.DataFrame:
        wide = rows.pivot(index=["Dataset", "Split"], columns="label", values=values)
        wide = wide.reindex(index=index, columns=list(CLASSES)).astype("Int64").astype("string")
        return wide.rename(columns=str.capitalize)

    measured = rows.loc[rows.kind == "measured"]
    totals = measured.loc[measured.Manipulation == ALL]
    counted = set(measured.Dataset)
    absent = pd.Series(["0" if name in counted else MISSING for name, _ in index], index)
    ours, videos = (
        pivot(totals, values).transform(lambda column: column.fillna(absent))
        for values in ("faces", "videos")
    )
    paper = pivot(rows.loc[rows.kind == "published"], "faces").fillna("")
    fakes = measured.loc[~measured.Manipulation.isin([ALL, ""])]
    by_kind = fakes.pivot(index=["Dataset", "Manipulation"], columns="Split", values="faces")
    by_kind = by_kind.reindex(columns=SPLITS).fillna(0).astype(int)
    counts = _beside(ours, paper).add_suffix(" faces").join(videos.add_suffix(" videos"))
    protocol = describe_experiment(report)
    page = render_template(
        "experiment_counts.md.j2",
        report=report,
        counts=to_markdown(counts, numbers="right"),
        manipulations=to_markdown(by_kind, numbers="right") if len(by_kind) else "",
        protocol=protocol,
    )
    caption = f"{report.title}; the paper has no validation split."
    return page, to_latex(report, ours, paper, caption, protocol)


def _beside(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Return both values of each cell in one text."""
    return (ours + "; paper " + paper).where((ours != "") & (paper != ""), ours + paper)


def _in_columns(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Return both values of each cell in two columns, as narrow as the page needs them."""
    paper = paper.replace(r" \(Table \d\)", "", regex=True)  # the caption has it
    table = pd.concat([values[[test]] for test in ours for values in (ours, paper)], axis=1)
    return table.set_axis([name for test in ours for name in (test, "paper")], axis=1)
