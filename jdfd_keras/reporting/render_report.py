"""A report as a person reads it: Markdown.

Takes the dict that `report.build_report` gives; gives the tables and their order. What is said
around them is `sentences`'.
"""

from collections.abc import Iterator, Sequence

from jdfd_keras.evaluation.metrics import MEASURED
from jdfd_keras.evaluation.report import UNKNOWN
from jdfd_keras.reporting.markdown import cell, table
from jdfd_keras.reporting.report_text import (
    compare_in_words,
    count_of,
    format_estimate,
    headline,
    tell_calibration,
    tell_limits,
    tell_reconstruction,
    tell_setup,
    tell_table,
    title_of,
)

MOST_LISTED = 50  # excluded videos on the page; report.json has all
CAPTIONS = {
    "roc": "ROC curves: how many fakes are found for how many reals called fake",
    "det": "The errors of both kinds against each other, on normal deviate axes",
    "precision-recall": "Precision and recall: how many of those called fake are fake",
    "scores": "Scores of the videos of each class",
    "reliability": "Reliability: how many are really fake, of those with a score",
    "faces": "Some of the faces, and what the decoder makes of them if there is one",
    "errors": "Reals with the highest scores, fakes with the lowest, and where the network looked",
}
PARTS = {
    "by_data": "data set",
    "by_split": "split",
    "by_compression": "compression",
    "by_manipulation": "manipulation",
}


def render_markdown(report: dict, pictures: Sequence[str] = ()) -> str:
    """Write the report as a person reads it.

    Args:
        report: What `build_report` gave.
        pictures: Names of the pictures beside the report, without suffix, in their order.

    Returns:
        Markdown, with a line feed at its end.
    """
    protocol = report["protocol"]
    shown = {name: f"![{CAPTIONS[name]}]({name}.png)" for name in pictures}
    curves = "\n".join(shown[n] for n in ("roc", "det", "precision-recall") if n in shown)
    sections = [
        f"# {cell(title_of(protocol))}",
        headline(report),
        tell_setup(protocol),
        _measure_table(report),
        tell_table(report),
        *_verdict_section(report),
        *_group_sections(report),
        *_comparison_section(report),
        "## Curves",
        curves
        or "There are no curves: they take real and fake faces, and the scores hold at most one "
        "of the two classes.",
        "## Scores",
        *(shown[name] for name in ("scores", "reliability") if name in shown),
        tell_calibration(report),
    ]
    if report["reconstruction"]:
        sections += ["## Reconstruction", tell_reconstruction(report)]
    if "faces" in shown:
        sections += ["## Faces", shown["faces"]]
    sections += [
        *_hardest_section(report, shown.get("errors")),
        "## Videos without a score",
        _excluded_text(report),
        "## What these numbers do not say",
        tell_limits(report),
        "## Protocol",
        table(("setting", "value"), [*_flat(protocol)]),
    ]
    return "\n\n".join(sections) + "\n"


def _measure_table(report: dict) -> str:
    threshold = report["protocol"]["threshold"]
    names = {
        "auc": "area under the ROC curve (AUC)",
        "eer": "equal error rate (EER)",
        "ap": "average precision (AP)",
        "accuracy": f"accuracy at {threshold:.3g}",
        "tpr": f"fakes called fake at {threshold:.3g}",
        "fpr": f"reals called fake at {threshold:.3g}",
        "tpr_at_1_fpr": "fakes found where 1 % of reals are called fake",
        "tpr_at_5_fpr": "fakes found where 5 % of reals are called fake",
    }
    levels = (report["frame"], report["video"])
    rows = [("real / fake", *(f"{level['num_real']} / {level['num_fake']}" for level in levels))]
    rows += [
        (names[metric], *(format_estimate(level[metric]) for level in levels))
        for metric in MEASURED
    ]
    return table(("", "faces", "videos"), rows, align="lrr")


def _verdict_section(report: dict) -> Iterator[str]:
    if not report["verdicts"]:
        return
    yield "## Verdicts"
    rows = [(f"{name} videos", *counts.values()) for name, counts in report["verdicts"].items()]
    header = ("", *(f"called {verdict}" for verdict in report["verdicts"]["real"]))
    yield table(header, rows, align="lrrr")


def _group_sections(report: dict) -> Iterator[str]:
    """Write a table for each way of parting the videos."""
    for key, title in PARTS.items():
        if key in report:
            yield f"## By {title}"
            if key == "by_manipulation":
                reals = count_of(report["video"]["num_real"], "real video")
                yield f"Each against all {reals}." if report[key] else "The scores hold no fakes."
            if report[key]:
                yield _group_table(title, [*_walk(report[key])])


def _walk(groups: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    for name, group in groups.items():
        here = (*path, name or "unnamed")
        yield " / ".join(here), group
        for key in PARTS:
            if len(group.get(key, ())) > 1:
                yield from _walk(group[key], here)


def _group_table(title: str, groups: list[tuple[str, dict]]) -> str:
    rows = [
        (
            name,
            f"{group['video']['num_real']} / {group['video']['num_fake']}",
            group["coverage"]["num_videos"] - group["coverage"]["num_scored"],
            group["coverage"]["num_faces"],
            format_estimate(group["frame"]["auc"]),
            format_estimate(group["video"]["auc"]),
            format_estimate(group["video"]["eer"]),
        )
        for name, group in groups
    ]
    header = (title, "real / fake", "no score", "faces", "frame AUC", "video AUC", "video EER")
    return table(header, rows, align="lrrrrrr")


def _comparison_section(report: dict) -> Iterator[str]:
    if "comparison" not in report:
        return
    comparison = report["comparison"]
    yield "## Comparison"
    yield (
        f"With the scores of {cell(comparison['with'])}, on "
        f"{count_of(comparison['num_videos'], 'video')} that both have scored (DeLong's test; of "
        "faces with Obuchowski's sums over videos)."
    )
    yield compare_in_words("videos", comparison["video"])
    yield (
        compare_in_words("faces", comparison["frame"])
        if comparison["frame"]
        else "Faces cannot be compared: both did not look at the same ones, or one class lacks."
    )
    for key, whose in (("only_first", "this detector"), ("only_second", "the other")):
        if comparison[key]:
            count = count_of(len(comparison[key]), "video")
            yield f"Left out, since only {whose} has scored them: {count}."


def _hardest_section(report: dict, picture: str | None) -> Iterator[str]:
    threshold = report["protocol"]["threshold"]
    wrong = [
        face
        for face in report["hardest"]
        if (face["score"] >= threshold) != (face["label"] == "fake")
    ]
    yield "## Hardest errors" if wrong else "## Nearest to an error"
    if not wrong:
        yield f"No face of these is on the wrong side of {threshold:.3g}."
    if picture:
        yield picture
    rows = [
        (number, face["label"], f"{face['score']:.3f}", face["video_id"], face["frame_index"])
        for number, face in enumerate(report["hardest"], start=1)
    ]
    yield table(("", "label", "score", "video", "frame"), rows, align="rlrlr")


def _excluded_text(report: dict) -> str:
    excluded = report["excluded"]
    if not excluded:
        if report["protocol"].get("coverage") == UNKNOWN:
            return "Whether there are any is not known here: name the data sets to check."
        return "None: every video has a score."
    rows = [
        (video["data"], video["video_id"], "fake" if video["is_fake"] else "real", video["reason"])
        for video in excluded[:MOST_LISTED]
    ]
    more = len(excluded) - len(rows)
    coverage = report["coverage"]
    return (
        f"Without a score: {len(excluded)} of {count_of(coverage['num_videos'], 'video')}, so that "
        f"{coverage['share']:.1%} are covered. None of the numbers above speaks of the others.\n\n"
        f"{table(('data', 'video', 'label', 'reason'), rows)}"
        + (f"\n\n{more} more are named in report.json." if more else "")
    )


def _flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, prefix=f"{label}: ")
        else:
            yield label, _write(value)


def _write(value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_write, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
