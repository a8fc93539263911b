"""The figure of an experiment: what it found, put to the drawings of the room.

Takes the report of an experiment; writes Fig. 3 or Fig. 4 as .png and .svg. Draws nothing itself.
"""

from collections.abc import Mapping
from pathlib import Path

from jdfd_keras.evaluation.experiment.cells import read_cell_scores
from jdfd_keras.evaluation.experiment.published import LETTERS, SHARES_PERCENT
from jdfd_keras.evaluation.experiment.sets import name_set


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
    from jdfd_keras.evaluation.figures.curves import Curve, plot_roc

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
    from jdfd_keras.evaluation.figures.charts import plot_foreign_shares

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
