"""A report as Markdown: its sections and tables.

Takes a `Report`; the sentences around the tables come from `report_text`.
"""

from collections.abc import Iterator, Mapping, Sequence

from jdfd_keras.evaluation.eval_data import UNKNOWN, Protocol
from jdfd_keras.evaluation.metrics import MEASURED
from jdfd_keras.evaluation.report import Report, StratumMetrics
from jdfd_keras.evaluation.scores import GROUPS
from jdfd_keras.io.console import plural
from jdfd_keras.reporting.markdown import cell, table
from jdfd_keras.reporting.report_text import (
    describe_calibration,
    describe_comparison,
    describe_limits,
    describe_reconstruction,
    describe_setup,
    describe_table,
    format_estimate,
    headline,
    title_of,
)

MAX_LISTED = 50  # excluded videos on the page; report.json has all
CAPTIONS = {
    "roc": "ROC curves: share of fakes called fake against share of real called fake",
    "det": "Detection error trade-off: both error rates on normal deviate axes",
    "precision-recall": "Precision and recall of detecting fakes",
    "scores": "Scores of the videos of each class",
    "reliability": "Reliability: share of fakes by score",
    "faces": "Some of the faces, with their reconstructions if the model has a decoder",
    "errors": "Hardest errors with class-activation maps",
}


def render_markdown(report: Report, figures: Sequence[str] = ()) -> str:
    """Return a report as Markdown, with a line feed at its end.

    Args:
        report: As `evaluate` returns it.
        figures: Names of the figures next to the page, without suffix, in their order.

    Example:
        >>> render_markdown(report, ["roc"])  # doctest: +SKIP
    """
    shown = {name: f"![{CAPTIONS[name]}]({name}.png)" for name in figures}
    curves = "\n".join(shown[n] for n in ("roc", "det", "precision-recall") if n in shown)
    sections = [
        f"# {cell(title_of(report.protocol))}",
        headline(report),
        describe_setup(report.protocol),
        _metrics_table(report),
        describe_table(report),
        *_verdict_section(report),
        *_group_sections(report),
        *_comparison_section(report),
        "## Curves",
        curves or "There are no curves: they need real and fake faces, and one class is absent.",
        "## Scores",
        *(shown[name] for name in ("scores", "reliability") if name in shown),
        describe_calibration(report),
    ]
    if report.reconstruction:
        sections += ["## Reconstruction", describe_reconstruction(report)]
    if "faces" in shown:
        sections += ["## Faces", shown["faces"]]
    sections += [
        *_hardest_section(report, shown.get("errors")),
        "## Videos without a score",
        _excluded_text(report),
        "## Limits of these metrics",
        describe_limits(report),
        "## Protocol",
        table(("setting", "value"), [*_protocol_rows(report.protocol)]),
    ]
    return "\n\n".join(sections) + "\n"


def _metrics_table(report: Report) -> str:
    threshold = report.protocol.threshold
    names = {
        "auc": "area under the ROC curve (AUC)",
        "eer": "equal error rate (EER)",
        "ap": "average precision (AP)",
        "accuracy": f"accuracy at {threshold:.3g}",
        "tpr": f"true positive rate at {threshold:.3g} (fakes called fake)",
        "fpr": f"false positive rate at {threshold:.3g} (real called fake)",
        "tpr_at_1_fpr": "true positive rate at a false positive rate of 1 %",
        "tpr_at_5_fpr": "true positive rate at a false positive rate of 5 %",
    }
    levels = (report.frame, report.video)
    rows = [("real / fake", *(f"{level.num_real} / {level.num_fake}" for level in levels))]
    rows += [
        (names[metric], *(format_estimate(getattr(level, metric)) for level in levels))
        for metric in MEASURED
    ]
    return table(("", "faces", "videos"), rows, align="lrr")


def _verdict_section(report: Report) -> Iterator[str]:
    if not report.verdicts:
        return
    yield "## Verdicts"
    rows = [(f"{name} videos", *counts.values()) for name, counts in report.verdicts.items()]
    header = ("", *(f"called {verdict}" for verdict in report.verdicts["real"]))
    yield table(header, rows, align="lrrr")


def _group_sections(report: Report) -> Iterator[str]:
    """Yield a table for each group that has several values, and for manipulations."""
    for name in GROUPS:
        strata = getattr(report, f"by_{name}")
        title = "dataset" if name == "data" else name
        if strata or name == "manipulation":
            yield f"## By {title}"
        if name == "manipulation":
            count = report.video.num_real
            real = "the 1 real video" if count == 1 else f"all {count} real videos"
            yield f"Each against {real}." if strata else "There are no fake videos."
        if strata:
            yield _group_table(title, [*_walk(strata)])


def _walk(
    strata: Mapping[str, StratumMetrics], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, StratumMetrics]]:
    for name, stratum in strata.items():
        here = (*path, name or "not stated")
        yield " / ".join(here), stratum
        for group in GROUPS:
            below = getattr(stratum, f"by_{group}")
            if len(below) > 1:
                yield from _walk(below, here)


def _group_table(title: str, strata: list[tuple[str, StratumMetrics]]) -> str:
    rows = [
        (
            name,
            f"{stratum.video.num_real} / {stratum.video.num_fake}",
            stratum.coverage.num_videos - stratum.coverage.num_scored,
            stratum.coverage.num_faces,
            format_estimate(stratum.frame.auc),
            format_estimate(stratum.video.auc),
            format_estimate(stratum.video.eer),
        )
        for name, stratum in strata
    ]
    header = (title, "real / fake", "no score", "faces", "frame AUC", "video AUC", "video EER")
    return table(header, rows, align="lrrrrrr")


def _comparison_section(report: Report) -> Iterator[str]:
    comparison = report.comparison
    if comparison is None:
        return
    yield "## Comparison"
    yield (
        f"With the scores of {cell(comparison.compared_with)}, on "
        f"{plural(comparison.num_videos, 'video')} that both have scored (DeLong's test; for "
        "faces with Obuchowski's sums over videos)."
    )
    yield describe_comparison("videos", comparison.video)
    yield (
        describe_comparison("faces", comparison.frame)
        if comparison.frame
        else "Faces cannot be compared: the tables hold different faces, or one class is absent."
    )
    for names, owner in (
        (comparison.only_first, "this detector"),
        (comparison.only_second, "the other"),
    ):
        if names:
            yield f"Excluded, since only {owner} has scored them: {plural(len(names), 'video')}."


def _hardest_section(report: Report, figure: str | None) -> Iterator[str]:
    threshold = report.protocol.threshold
    has_errors = any((face.score >= threshold) != (face.label == "fake") for face in report.hardest)
    yield "## Hardest errors" if has_errors else "## Closest to an error"
    if not has_errors:
        yield f"All of these faces are on the correct side of {threshold:.3g}."
    if figure:
        yield figure
    rows = [
        (number, face.label, f"{face.score:.3f}", face.video_id, face.frame_index)
        for number, face in enumerate(report.hardest, start=1)
    ]
    yield table(("", "label", "score", "video", "frame"), rows, align="rlrlr")


def _excluded_text(report: Report) -> str:
    excluded, coverage = report.excluded, report.coverage
    if not excluded:
        if report.protocol.coverage == UNKNOWN:
            return "Unknown: pass the datasets to list them."
        return "None: every video has a score."
    rows = [
        (video.data, video.video_id, "fake" if video.is_fake else "real", video.reason)
        for video in excluded[:MAX_LISTED]
    ]
    more = len(excluded) - len(rows)
    return (
        f"{len(excluded)} of {plural(coverage.num_videos, 'video')} have no score (coverage "
        f"{coverage.share:.1%}). The metrics above do not include them.\n\n"
        f"{table(('data', 'video', 'label', 'reason'), rows)}"
        + (f"\n\n{more} more are listed in report.json." if more else "")
    )


def _protocol_rows(protocol: Protocol) -> Iterator[tuple[str, str]]:
    settings = protocol.to_dict()
    if protocol.model_digest and protocol.calibration is None:
        settings["calibration"] = "none"
    return _flatten(settings)


def _flatten(settings: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flatten(value, prefix=f"{label}: ")
        else:
            yield label, _format_setting(value)


def _format_setting(value) -> str:
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_format_setting, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
