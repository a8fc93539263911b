"""A report as a person reads it: Markdown.

Takes the dict that `report.build_report` gives; gives text. Computes nothing but the shares that
its sentences name.
"""

from jdfd_keras.evaluation.metrics import MEASURED
from jdfd_keras.markdown import cell, table


def render_markdown(report: dict, *, roc: str | None, faces: str | None = None) -> str:
    """Write the report as a person reads it.

    Args:
        report: What `build_report` gave.
        roc: Name of the picture of the curves beside the report, None if there is none.
        faces: Name of the picture of faces, and their reconstructions if there are any; None if
            there is no picture.

    Returns:
        Markdown, with a line feed at its end.
    """
    protocol = report["protocol"]
    sections = [
        f"# {cell(protocol.get('model', 'scores'))} on {cell(protocol.get('data', 'scores'))}"
        + (f", split {protocol['split']}" if "split" in protocol else ""),
        _headline(report),
        _verdict_table(report),
        f"![ROC curves of faces and of videos]({roc})"
        if roc
        else "There is no ROC curve: it takes real and fake faces, and the scores hold at most "
        "one of the two classes.",
        "## By manipulation",
        _manipulation_table(report),
        "## Reconstruction",
        _reconstruction_text(report["reconstruction"]),
        *([f"![{_describe_faces(report)}]({faces})"] if faces else []),
        "## Excluded videos",
        _excluded_text(report),
        "## Protocol",
        table(("setting", "value"), [*_flat(protocol)]),
        "## What these numbers do not say",
        _limits(report),
    ]
    return "\n\n".join(sections) + "\n"


def format_value(value: float | None) -> str:
    """Write a metric with three decimals; None is `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def _headline(report: dict) -> str:
    video = report["video"]
    num_videos = video["num_real"] + video["num_fake"]
    if video["auc"]["value"] is None:
        only = "real" if video["num_real"] else "fake"
        return (
            f"**All {num_videos} scored videos are {only}**, so how well real and fake are told "
            "apart is undefined here."
        )
    return (
        f"**Video AUC {video['auc']['value']:.3f}** over {num_videos} videos "
        f"({video['num_real']} real, {video['num_fake']} fake): the chance that a fake video "
        "scores higher than a real one. 0.5 is a coin, 1 is perfect."
    )


def _verdict_table(report: dict) -> str:
    threshold = report["protocol"]["threshold"]
    names = {
        "auc": "area under the ROC curve (AUC)",
        "eer": "equal error rate (EER)",
        "ap": "average precision (AP)",
        "accuracy": f"accuracy at {threshold:g}",
        "tpr": f"fakes called fake at {threshold:g}",
        "fpr": f"reals called fake at {threshold:g}",
    }
    levels = (report["frame"], report["video"])
    rows = [("real / fake", *(f"{level['num_real']} / {level['num_fake']}" for level in levels))]
    rows += [
        (names[metric], *(format_value(level[metric]["value"]) for level in levels))
        for metric in MEASURED
    ]
    return table(("", "faces", "videos"), rows, align="lrr")


def _manipulation_table(report: dict) -> str:
    if not report["by_manipulation"]:
        return "The scores hold no fakes."
    rows = [
        (
            name,
            group["video"]["num_fake"],
            format_value(group["frame"]["auc"]["value"]),
            format_value(group["video"]["auc"]["value"]),
            format_value(group["video"]["eer"]["value"]),
        )
        for name, group in report["by_manipulation"].items()
    ]
    header = ("manipulation", "fake videos", "frame AUC", "video AUC", "video EER")
    return (
        f"Each against all {report['video']['num_real']} real videos.\n\n"
        f"{table(header, rows, align='lrrrr')}"
    )


def _reconstruction_text(error: dict | None) -> str:
    if error is None:
        return "This detector has no decoder."
    text = (
        f"Mean squared error of the decoder: {error['mse']:.4f}. Always answering the mean face "
        f"of this set would give {error['mean_face_mse']:.4f} (pixels in -1..1)."
    )
    if error["mse"] < error["mean_face_mse"]:
        explained = 1 - error["mse"] / error["mean_face_mse"]
        return f"{text} The decoder explains {explained:.1%} of how the faces differ."
    return (
        f"{text} **The decoder is no better than the mean face**: it has learned nothing that "
        "tells one face from another."
    )


def _describe_faces(report: dict) -> str:
    if report["reconstruction"] is None:
        return "Some of the faces with their scores"
    return "Faces above what the decoder made of them"


def _excluded_text(report: dict) -> str:
    excluded = report["excluded"]
    if not excluded:
        return "None: every video of the split has a score."
    rows = [
        (video["video_id"], "fake" if video["is_fake"] else "real", video["reason"])
        for video in excluded
    ]
    return (
        f"Without a score: {len(excluded)} of {_num_videos(report)} videos. None of the numbers "
        f"above speaks of them.\n\n{table(('video', 'label', 'reason'), rows)}"
    )


def _limits(report: dict) -> str:
    video = report["video"]
    fewest = min(video["num_real"], video["num_fake"])
    weight = f": one video is {1 / fewest:.1%} of it" if fewest else ""
    compared = (
        "They hold for these videos, these manipulations and this compression. Detectors do "
        "markedly worse on data sets they were not trained on."
    )
    spread = (
        f"They carry no confidence intervals, and the smaller class has {fewest} videos{weight}."
    )
    repeated = (
        "Faces of one video resemble each other, so many faces are not many independent trials: "
        "judge by the videos."
    )
    scale = (
        "A score is the network's output as trained, not a calibrated probability, and the "
        "threshold was set beforehand, not fitted to this data."
    )
    lines = [compared, spread, repeated, scale]
    if report["protocol"].get("split") == "val":
        lines.append(
            "The checkpoint was chosen on validation data, so on this split the numbers flatter."
        )
    elif report["protocol"].get("split") == "train":
        lines.append(
            "The network was trained on this split: the numbers tell of memory, not of skill."
        )
    taken, learned = (
        report["protocol"].get(name, {}) for name in ("face_options", "training_face_options")
    )
    differing = [name for name, value in taken.items() if learned.get(name, value) != value]
    if differing:
        lines.append(
            f"The evaluated faces were taken otherwise than those of the training, in "
            f"{' and '.join(differing)}: part of the errors may come from that."
        )
    if report["excluded"]:
        lines.append(
            f"They leave out {len(report['excluded'])} of {_num_videos(report)} videos, which "
            "gave no face and may well be the harder ones."
        )
    return "\n".join(f"- {line}" for line in lines)


def _num_videos(report: dict) -> int:
    video = report["video"]
    return video["num_real"] + video["num_fake"] + len(report["excluded"])


def _flat(settings: dict, prefix: str = ""):
    for name, value in settings.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, prefix=f"{label}: ")
        else:
            yield label, value
