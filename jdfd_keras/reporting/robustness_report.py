"""The tables and the figure of `experiment robustness`.

Takes a `RobustnessReport`; computes nothing. The words are in the template.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jdfd_keras.io.console import csv_text, plural
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.reporting.style import (
    GUIDE,
    add_title_and_legend,
    line_style,
    new_figure,
    save_figure,
    with_own_settings,
)
from jdfd_keras.reporting.templating import format_value, render_template, write_page

if TYPE_CHECKING:
    from jdfd_keras.evaluation.metrics import Metrics
    from jdfd_keras.experiments.robustness import RobustnessReport, RobustnessRow

FORMATS = ("md", "html", "csv", "json")
NONE, ALL = "none", "all"
NUM_COLUMNS = 3  # of the figure
MAX_TITLE = 60


def write_robustness(report: "RobustnessReport", out: str | Path) -> "RobustnessReport":
    """Write the table, the figure and the page of the experiment robustness.

    Args:
        report: As `measure_robustness` returns it.
        out: Folder of the experiment; created if missing, files of these names are replaced.

    Returns:
        The report as robustness.json holds it: with `files`, `figure` and, if the figure could not
        be drawn, the reason in `failed`.

    Raises:
        OSError: If a table cannot be written.

    Example:
        >>> from jdfd_keras.experiments.robustness import measure_robustness
        >>> from jdfd_keras.options import RobustnessOptions
        >>> options = RobustnessOptions("gamma=2", quick=True)
        >>> report = measure_robustness("run", {"ff": "prepared"}, "gamma", options)
        >>> write_robustness(report, "gamma").files
        ('robustness.md', 'robustness.html', 'robustness.csv', 'robustness.json')
    """
    out, name = Path(out), report.experiment
    out.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        (out / f"{name}{suffix}").unlink(missing_ok=True)  # of an earlier call
    figure, failed = None, list(report.failed)
    if any(row.video for row in report.results if row.degradation != NONE):
        try:
            save_figure(draw_robustness(report), out / name)
            figure = f"{name}.png"
        except (OSError, ValueError) as error:  # the tables are still useful
            failed.append(f"figure: {error}")
    files = tuple(f"{name}.{suffix}" for suffix in FORMATS)
    report = dataclasses.replace(report, figure=figure, failed=tuple(failed), files=files)
    page = render_robustness(report)
    write_text_atomically(out / f"{name}.md", page)
    write_page(out / f"{name}.html", page)
    table = pd.DataFrame([_flatten(row) for row in report.results])
    table = table.map(lambda value: csv_text(value) if isinstance(value, str) else value)
    table = table.convert_dtypes()
    write_text_atomically(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    write_text_atomically(out / f"{name}.json", text + "\n")
    return report


def render_robustness(report: "RobustnessReport") -> str:
    """Return the page of the experiment robustness as Markdown.

    Example:
        >>> from jdfd_keras.experiments.robustness import measure_robustness
        >>> from jdfd_keras.options import RobustnessOptions
        >>> options = RobustnessOptions("gamma=2", quick=True)
        >>> report = measure_robustness("run", {"ff": "prepared"}, "gamma", options)
        >>> render_robustness(report).splitlines()[0]
        '# Robustness: AUC of degraded face crops'
    """
    rows: dict[str, dict[str, list[RobustnessRow]]] = {}
    for row in report.results:
        rows.setdefault(row.data, {}).setdefault(row.degradation, []).append(row)
    means = {(mean.data, mean.degradation): mean for mean in report.means}
    most = max((len(own) for by_name in rows.values() for own in by_name.values()), default=1)
    return render_template(
        "robustness.md.j2",
        report=report,
        rows=rows,
        means=means,
        most=most,
        as_is=NONE,
        overall=ALL,
    )


def _flatten(row: "RobustnessRow") -> dict[str, object]:
    """Return the row of the CSV table of a cell; AUC and TPR from 0 to 1."""
    values: dict[str, object] = {
        name: getattr(row, name) for name in ("data", "degradation", "strength")
    }
    levels: dict[str, Metrics | None] = {"video": row.video, "frame": row.frame}
    for level, metrics in levels.items():
        for name in ("auc", "tpr_at_5_fpr"):
            estimate = getattr(metrics, name) if metrics else None
            for end in ("value", "low", "high"):
                suffix = "" if end == "value" else f"_{end}"
                values[f"{level}_{name}{suffix}"] = getattr(estimate, end) if estimate else None
    change = row.difference
    values["video_auc_change"] = change.difference.value if change else None
    values["video_auc_change_low"] = change.difference.low if change else None
    values["video_auc_change_high"] = change.difference.high if change else None
    values["p"] = change.p if change else None
    counts = ("num_common", "num_videos", "num_scored")
    return values | {name: getattr(row, name) for name in (*counts, "source", "failed")}


@with_own_settings
def draw_robustness(report: "RobustnessReport") -> Figure:
    """Draw the video AUC by strength, in one panel for each degradation, with interval bands.

    The first point is the data as it is. A cell without a result is a gap in its curve.

    Args:
        report: As `measure_robustness` returns it, with one result at least.

    Example:
        >>> from jdfd_keras.experiments.robustness import measure_robustness
        >>> from jdfd_keras.options import RobustnessOptions
        >>> options = RobustnessOptions("gamma=2,blur=1", quick=True)
        >>> report = measure_robustness("run", {"ff": "prepared"}, "two", options)
        >>> len(draw_robustness(report).axes)
        2
    """
    names = list(report.protocol.units)
    keys = list(dict.fromkeys(row.data for row in report.results))
    num_rows = -(-len(names) // NUM_COLUMNS)
    columns = min(NUM_COLUMNS, len(names))
    figure = new_figure(0.4 + 2.25 * max(columns, 2), 0.3 + 1.75 * num_rows)
    panels = figure.subplots(num_rows, columns, sharey=True, squeeze=False).ravel()
    lowest = 0.5
    for panel, name in zip(panels, names, strict=False):
        strengths = list(
            dict.fromkeys(row.strength for row in report.results if row.degradation == name)
        )
        for index, key in enumerate(keys):
            of_key = [row for row in report.results if row.data == key]
            whole = [row for row in of_key if row.degradation == NONE]
            by_strength = {row.strength: row for row in of_key if row.degradation == name}
            own = [*whole, *(by_strength[strength] for strength in strengths)]
            # None becomes NaN, a gap.
            ends = [row.video.auc if row.video else None for row in own]
            value, low, high = (
                np.array([getattr(one, end) if one else None for one in ends], np.float64)
                for end in ("value", "low", "high")
            )
            style, positions = line_style(index), np.arange(len(own))
            panel.plot(positions, value, label=key, **style)
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0, "zorder": 1}
            panel.fill_between(positions, low, high, **band)
            lowest = min([lowest, *value[~np.isnan(value)], *low[~np.isnan(low)]])
        panel.axhline(0.5, label="chance", **GUIDE)
        labels = ["none", *(f"{strength:g}" for strength in strengths)]
        panel.set_xticks(range(len(labels)), labels)
        panel.set_xlim(-0.25, len(labels) - 0.75)  # also where cells have no result
        panel.tick_params(labelsize=7)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel(report.protocol.units[name], fontsize=8)
    for panel in panels[len(names) :]:
        panel.remove()
    for row in panels.reshape(num_rows, columns):
        row[0].set_ylabel("video AUC", fontsize=8)
    panels[0].set_ylim(max(0.0, lowest - 0.03), 1.02)
    add_title_and_legend(figure, panels[0], _describe_title(report))
    return figure


def _describe_title(report: "RobustnessReport") -> str:
    model = report.protocol.model
    model = model if len(model) <= MAX_TITLE else f"{model[:MAX_TITLE]}..."
    return f"Video AUC of {model}, by strength of the degradation of {report.protocol.applied_to}"


def summarize_robustness(report: "RobustnessReport") -> str:
    """Return the means of each dataset as lines for a terminal.

    Example:
        >>> from jdfd_keras.experiments.robustness import measure_robustness
        >>> from jdfd_keras.options import RobustnessOptions
        >>> options = RobustnessOptions("gamma=2", quick=True)
        >>> report = measure_robustness("run", {"ff": "prepared"}, "gamma", options)
        >>> print(summarize_robustness(report))
        ff: mean video AUC over strengths ... (gamma ...), undegraded ...
    """
    lines = []
    for data in dict.fromkeys(row.data for row in report.results):
        means = {mean.degradation: mean for mean in report.means if mean.data == data}
        whole = next(row for row in report.results if row.data == data and row.degradation == NONE)
        own = ", ".join(
            f"{name} {format_value(mean.auc)}" for name, mean in means.items() if name != ALL
        )
        auc = format_value(whole.video.auc.value if whole.video else None)
        mean = means[ALL]
        total = format_value(mean.auc)
        if 0 < mean.num_measured < mean.num_requested:
            total += f" over {mean.num_measured} of {plural(mean.num_requested, 'degradation')}"
        lines.append(f"{data}: mean video AUC over strengths {total} ({own}), undegraded {auc}")
    return "\n".join(lines)
