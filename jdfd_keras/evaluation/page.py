"""A report as a person reads it: Markdown.

Takes the dict that `report.build_report` gives; gives text. Computes nothing but the shares that
its sentences name.
"""

from collections.abc import Iterator, Sequence

from jdfd_keras.evaluation.metrics import FPR_ALLOWED, MEASURED
from jdfd_keras.markdown import cell, table

MOST_LISTED = 50  # excluded videos on the page; report.json has all
CAPTIONS = {
    "roc": "ROC curves: how many fakes are found for how many reals called fake",
    "det": "The errors of both kinds against each other, on normal deviate axes",
    "precision-recall": "Precision and recall: how many of those called fake are fake",
    "scores": "Scores of the videos of each class",
    "reliability": "Reliability: how many are really fake, of those with a score",
    "faces": "Some of the faces, and what the decoder makes of them if there is one",
    "errors": "The hardest errors: reals with the highest scores, fakes with the lowest, and where "
    "the network looked",
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
    curves = [shown[name] for name in ("roc", "det", "precision-recall") if name in shown]
    faces = [shown[name] for name in ("faces",) if name in shown]
    sections = [
        f"# {cell(title_of(protocol))}",
        _headline(report),
        _setup_text(protocol),
        _measure_table(report),
        _table_notes(report),
        *_group_sections(report),
        *(
            ["## Comparison", _comparison_text(report["comparison"])]
            if "comparison" in report
            else []
        ),
        "## Curves",
        "\n".join(curves) or _no_curves(report),
        "## Scores",
        *(shown[name] for name in ("scores", "reliability") if name in shown),
        _calibration_text(report),
        *(["## Reconstruction", _reconstruction_text(report)] if report["reconstruction"] else []),
        *(["## Faces", *faces] if faces else []),
        *(["## Hardest errors", shown["errors"]] if "errors" in shown else []),
        "## Videos without a score",
        _excluded_text(report),
        "## What these numbers do not say",
        _limits(report),
        "## Protocol",
        table(("setting", "value"), [*_flat(protocol)]),
    ]
    return "\n\n".join(sections) + "\n"


def title_of(protocol: dict) -> str:
    """Say what was measured on what."""
    data = ", ".join(protocol["data"])
    split = f", split {protocol['split']}" if "split" in protocol else ""
    return f"{protocol['model']}{f' on {data}' if data else ''}{split}"


def summarize(report: dict) -> str:
    """Say the main numbers in a few lines, for a terminal.

    Args:
        report: What `build_report` gave.

    Returns:
        One line for the videos, one for the faces, and one each for a comparison and for what was
        left out, if any.
    """
    lines = []
    for name, level in (("videos", report["video"]), ("faces", report["frame"])):
        values = ", ".join(
            f"{label} {format_estimate(level[metric])}"
            for metric, label in (("auc", "AUC"), ("eer", "EER"), ("accuracy", "accuracy"))
        )
        lines.append(f"{name}: {values} ({level['num_real']} real, {level['num_fake']} fake)")
    if "comparison" in report:
        lines.append(_compare_in_words("videos", report["comparison"]["video"]))
    if report["excluded"]:
        count = len(report["excluded"])
        noun = "video" if count == 1 else "videos"
        lines.append(f"without a score: {count} {noun}, named in the report")
    return "\n".join(lines)


def format_value(value: float | None) -> str:
    """Write a metric with three decimals; None is `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def format_estimate(estimate: dict) -> str:
    """Write a metric with its interval, if it has one: `0.912 [0.880, 0.940]`."""
    text = format_value(estimate["value"])
    if estimate["low"] is None:
        return text
    return f"{text} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _headline(report: dict) -> str:
    video, coverage = report["video"], report["coverage"]
    num_videos = video["num_real"] + video["num_fake"]
    if video["auc"]["value"] is None:
        only = "real" if video["num_real"] else "fake"
        return (
            f"**All {num_videos} scored videos are {only}**, so how well real and fake are told "
            "apart is undefined here."
        )
    low, high = video["auc"]["low"], video["auc"]["high"]
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    verdict = (
        f"**Video AUC {video['auc']['value']:.3f}**{interval} over {num_videos} videos "
        f"({video['num_real']} real, {video['num_fake']} fake, {coverage['num_faces']} faces): the "
        "chance that a fake video scores higher than a real one. 0.5 is a coin, 1 is perfect."
    )
    if low is None:
        too_few = min(video["num_real"], video["num_fake"]) < 2
        why = "that takes two videos of each class" if too_few else "no rounds were asked for"
        return f"{verdict} There is no interval: {why}."
    if low <= 0.5:
        return f"{verdict} **This does not show that it is better than a coin.**"
    return verdict


def _setup_text(protocol: dict) -> str:
    training, tested = protocol["training"], []
    if isinstance(training, dict) and "data" in training:
        split = training.get("split", {}).get("split", "unknown")
        seed = training.get("train", {}).get("seed", "unknown")
        learned = f"Trained on {cell(training['data']['name'])} ({split} splits, seed {seed})."
    else:
        learned = "What it was trained on is not known here."
    for name, described in protocol["data"].items():
        faces, split = described.get("faces"), described.get("split")
        if faces and split:
            frames = (
                f"every {faces['every']}th frame"
                if faces["every"]
                else f"up to {faces['frames_per_video']} frames per video"
            )
            tested.append(
                f"Tested on {cell(name)} ({split['split']} splits): {frames}, faces found by "
                f"{faces['detector']}, laid by {faces['alignment']}, {faces['face_size']} pixels."
            )
    return " ".join([learned, *tested, f"Leaks: {cell(protocol['leaks'])}."])


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


def _table_notes(report: dict) -> str:
    protocol, video = report["protocol"], report["video"]
    notes = [
        f"In brackets: {protocol['intervals']}. A video's score is the {protocol['aggregation']} "
        "of its faces."
        if protocol["aggregation"] != "track"
        else f"In brackets: {protocol['intervals']}. A video's score is the highest of the means "
        "of its people."
    ]
    few = [f"{100 * rate:g} %" for rate in FPR_ALLOWED.values() if 0 < video["num_real"] < 1 / rate]
    if few:
        notes.append(
            f"With {video['num_real']} real videos, {' and '.join(few)} of them is none: those "
            "rows say how many fakes score above every real video."
        )
    auc, fewest = video["auc"]["value"], min(video["num_real"], video["num_fake"])
    if auc is not None and auc < 1 and (1 - auc) * fewest < 1 and protocol["rounds"]:
        notes.append(
            "So near to 1, with so few videos, the interval of the AUC is too narrow: it knows "
            "only of errors that were seen."
        )
    if auc == 1:
        notes.append(
            "No real video scores as high as any fake one. That leaves an interval no width, but "
            f"it is no certainty: it rests on {video['num_real']} real and {video['num_fake']} "
            "fake videos."
        )
    return " ".join(notes)


def _group_sections(report: dict) -> Iterator[str]:
    """Write a table for each way of parting the videos."""
    titles = {"by_data": "data set", "by_split": "split", "by_compression": "compression"}
    for key, title in titles.items():
        if key in report:
            yield f"## By {title}"
            yield _group_table(title, [*_walk(report[key])])
    yield "## By manipulation"
    if not report["by_manipulation"]:
        yield "The scores hold no fakes."
        return
    yield f"Each against all {report['video']['num_real']} real videos."
    yield _group_table("manipulation", [*_walk(report["by_manipulation"])])


def _walk(groups: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    for name, group in groups.items():
        here = (*path, name)
        yield " / ".join(here), group
        for key in ("by_data", "by_split", "by_compression", "by_manipulation"):
            if len(group.get(key, ())) > 1:
                yield from _walk(group[key], here)


def _group_table(title: str, groups: list[tuple[str, dict]]) -> str:
    rows = [
        (
            name,
            f"{group['video']['num_real']} / {group['video']['num_fake']}",
            format_estimate(group["frame"]["auc"]),
            format_estimate(group["video"]["auc"]),
            format_estimate(group["video"]["eer"]),
            format_estimate(group["video"]["tpr_at_5_fpr"]),
        )
        for name, group in groups
    ]
    header = (title, "real / fake videos", "frame AUC", "video AUC", "video EER", "TPR at 5 % FPR")
    return table(header, rows, align="lrrrrr")


def _comparison_text(comparison: dict) -> str:
    lines = [
        f"With the scores of {cell(comparison['with'])}, on {comparison['num_videos']} videos that "
        "both have scored (DeLong's test; of faces with Obuchowski's sums over videos).",
        _compare_in_words("videos", comparison["video"]),
        _compare_in_words("faces", comparison["frame"])
        if comparison["frame"]
        else "Faces cannot be compared: both did not look at the same ones, or one class lacks.",
    ]
    for key, whose in (("only_first", "this detector"), ("only_second", "the other")):
        if comparison[key]:
            count = len(comparison[key])
            lines.append(f"Left out, since only {whose} has scored them: {count} videos.")
    return "\n\n".join(lines)


def _compare_in_words(level: str, found: dict | None) -> str:
    if found is None:
        return f"{level}: a difference of AUC is undefined, one class lacks"
    text = (
        f"{level}: AUC {found['auc']:.3f} beside {found['other_auc']:.3f}, difference "
        f"{format_estimate(found['difference'])}"
    )
    return text if found["p"] is None else f"{text}, p = {found['p']:.3g}"


def _no_curves(report: dict) -> str:
    return (
        "There are no curves: they take real and fake faces, and the scores hold at most one of "
        "the two classes."
    )


def _calibration_text(report: dict) -> str:
    calibration = report["protocol"].get("calibration")
    error = report["calibration"]
    text = (
        f"Expected calibration error: {error['frame_ece']:.3f} of faces, each video counting the "
        f"same, and {error['video_ece']:.3f} of videos."
    )
    if not calibration:
        return f"{text} The scores are not calibrated: `jdfd-keras calibrate` does that."
    text += (
        f" The scores are calibrated, with a temperature of {calibration['temperature']:.3g}, on "
        f"{calibration['num_real']} real and {calibration['num_fake']} fake validation videos of "
        f"{cell(calibration['data'])}."
    )
    low, high = calibration["uncertain_from"], calibration["uncertain_to"]
    if low < high:
        text += f" A verdict between {low:.3g} and {high:.3g} is `uncertain`."
    return text


def _reconstruction_text(report: dict) -> str:
    error = report["reconstruction"]
    text = (
        f"Mean squared error of the decoder: {error['mse']:.4f}. Always answering the mean face "
        f"of these would give {error['mean_face_mse']:.4f} (pixels in -1..1)."
    )
    if error["mse"] < error["mean_face_mse"]:
        explained = 1 - error["mse"] / error["mean_face_mse"]
        text += f" The decoder explains {explained:.1%} of how the faces differ."
    else:
        text += (
            " **The decoder is no better than the mean face**: it has learned nothing that tells "
            "one face from another."
        )
    if error["frame_auc"] is not None:
        text += (
            f" The error alone tells fakes from reals with a frame AUC of {error['frame_auc']:.3f}."
        )
    return text


def _excluded_text(report: dict) -> str:
    excluded = report["excluded"]
    if not excluded:
        return "None is known of: every video has a score."
    rows = [
        (video["data"], video["video_id"], "fake" if video["is_fake"] else "real", video["reason"])
        for video in excluded[:MOST_LISTED]
    ]
    more = len(excluded) - len(rows)
    coverage = report["coverage"]
    return (
        f"Without a score: {len(excluded)} of {coverage['num_videos']} videos, so that "
        f"{coverage['share']:.1%} are covered. None of the numbers above speaks of the others.\n\n"
        f"{table(('data', 'video', 'label', 'reason'), rows)}"
        + (f"\n\n{more} more are named in report.json." if more else "")
    )


def _limits(report: dict) -> str:
    protocol, video = report["protocol"], report["video"]
    fewest = min(video["num_real"], video["num_fake"])
    weight = f": one video is {1 / fewest:.1%} of it" if fewest else ""
    lines = [
        "They hold for these videos, these manipulations and this compression. Detectors do "
        "markedly worse on data sets they were not trained on.",
        "The intervals say how other videos of the same kind would change them, not other kinds "
        f"of video, nor another training. The smaller class has {fewest} videos{weight}.",
        "Faces of one video resemble each other, so many faces are not many independent trials: "
        "judge by the videos.",
    ]
    if not protocol.get("calibration"):
        lines.append(
            "A score is the network's output as trained, not a calibrated probability, and the "
            "threshold was set beforehand, not fitted to this data."
        )
    if protocol.get("split") == "val":
        lines.append(
            "The checkpoint was chosen on validation data, so on this split the numbers flatter."
        )
    elif protocol.get("split") == "train":
        lines.append(
            "The network was trained on this split: the numbers tell of memory, not of skill."
        )
    learned = protocol.get("training_faces", {})
    for name, described in protocol["data"].items():
        if described.get("split", {}).get("split") == "paper":
            lines.append(
                f"{cell(name)} was split by single faces, as in the paper: its videos lie in "
                "training too, which flatters."
            )
        differing = [k for k, v in described.get("faces", {}).items() if learned.get(k, v) != v]
        if differing:
            lines.append(
                f"The faces of {cell(name)} were taken otherwise than those of the training, in "
                f"{' and '.join(differing)}: part of the errors may come from that."
            )
    if report["excluded"]:
        lines.append(
            f"They leave out {len(report['excluded'])} of {report['coverage']['num_videos']} "
            "videos, which gave no face and may well be the harder ones."
        )
    return "\n".join(f"- {line}" for line in lines)


def _flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, prefix=f"{label}: ")
        else:
            yield label, value
