"""What a report says in sentences: the verdict, how it came about, what it does not say.

Takes the dict that `report.build_report` gives; gives text, in Markdown. Computes nothing but the
shares that it names.
"""

from jdfd_keras.evaluation.metrics import FPR_ALLOWED, MEASURED
from jdfd_keras.evaluation.report import find_calibration, read_calibrated
from jdfd_keras.reporting.markdown import cell

FEW = 20  # below, intervals are too narrow


def count_of(count: int, noun: str) -> str:
    """Write `1 video`, `2 videos`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_value(value: float | None) -> str:
    """Write a metric with three decimals; None is `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def format_estimate(estimate: dict) -> str:
    """Write a metric with its interval, if it has one: `0.912 [0.880, 0.940]`."""
    text = format_value(estimate["value"])
    if estimate["low"] is None:
        return text
    return f"{text} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


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
        lines.append(compare_in_words("videos", report["comparison"]["video"]))
    if report["protocol"].get("repeated_rows"):
        lines.append(f"note: {_tell_repeated(report['protocol'])}")
    if report["excluded"]:
        count = count_of(len(report["excluded"]), "video")
        lines.append(f"without a score: {count}, named in the report")
    return "\n".join(lines)


def _tell_repeated(protocol: dict) -> str:
    return (
        f"{count_of(protocol['repeated_rows'], 'row')} repeat video and score of another. Without "
        "the column frame_index, a face that is there twice cannot be told from two that score "
        "alike."
    )


def title_of(protocol: dict) -> str:
    """Say what was measured on what."""
    names = list(protocol["data"])
    data = ", ".join(names) if len(names) <= 3 else f"{len(names)} data sets"
    split = f", split {protocol['split']}" if "split" in protocol else ""
    return f"{protocol['model']}{f' on {data}' if data else ''}{split}"


def headline(report: dict) -> str:
    """Say the one number, and whether it says anything."""
    video = report["video"]
    num_videos = video["num_real"] + video["num_fake"]
    value, low, high = (video["auc"][name] for name in ("value", "low", "high"))
    if value is None:
        only = "real" if video["num_real"] else "fake"
        those = (
            "The one scored video is" if num_videos == 1 else f"All {num_videos} scored videos are"
        )
        return f"**{those} {only}**, so how well real and fake are told apart is undefined here."
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    verdict = (
        f"**Video AUC {value:.3f}**{interval} over {num_videos} videos "
        f"({video['num_real']} real, {video['num_fake']} fake, "
        f"{report['coverage']['num_faces']} faces): the chance that a fake video scores higher "
        "than a real one. 0.5 is a coin, 1 is perfect."
    )
    if low is None and value > 0:
        return f"{verdict} {_why_no_interval(report)}"
    if low is None or high < 0.5:
        return (
            f"{verdict} **It is worse than a coin**: are labels or scores turned round? 1 must be "
            "fake, and a higher score more fake."
        )
    if low <= 0.5:
        return f"{verdict} **This does not show that it is better than a coin.**"
    return verdict


def _why_no_interval(report: dict) -> str:
    video = report["video"]
    if not report["protocol"]["rounds"]:
        return "There is no interval: no rounds were asked for."
    if min(video["num_real"], video["num_fake"]) < 2:
        return "There is no interval: that takes two videos of each class."
    if video["auc"]["value"] < 1:
        return "There is no interval: whichever videos are drawn, it stays the same."
    return (
        "There is no interval: in these videos the classes lie wholly apart, and a bootstrap knows "
        f"only of errors that were seen. It is no certainty: it rests on {video['num_real']} real "
        f"and {count_of(video['num_fake'], 'fake video')}."
    )


def tell_setup(protocol: dict) -> str:
    """Say what it was trained on, what was tested, and how faces were taken."""
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
                f"one frame of {faces['every']}"
                if faces["every"]
                else f"up to {count_of(faces['frames_per_video'], 'frame')} per video"
            )
            tested.append(
                f"Tested on {cell(name)} ({split['split']} splits): {frames}, faces found by "
                f"{faces['detector']}, laid by {faces['alignment']}, {faces['face_size']} pixels."
            )
    return " ".join([learned, *tested, f"Leaks: {cell(protocol['leaks'])}."])


def tell_table(report: dict) -> str:
    """Say how the numbers are to be read, and which of them rest on little."""
    protocol, video = report["protocol"], report["video"]
    notes = []
    levels = (report["frame"], report["video"])
    if any(level[metric]["low"] is not None for level in levels for metric in MEASURED):
        notes.append(f"In brackets: {protocol['intervals']}.")
    notes.append(
        "A video's score is the highest of the means of its people."
        if protocol["aggregation"] == "track"
        else f"A video's score is the {protocol['aggregation']} of its faces."
    )
    if find_calibration(protocol, protocol["threshold"]) and protocol["aggregation"] != "track":
        notes.append(
            "The threshold was calibrated on the highest of the means of a video's people; where "
            "there is one, and with the mean, that is the same."
        )
    few = [f"{100 * rate:g} %" for rate in FPR_ALLOWED.values() if 0 < video["num_real"] < 1 / rate]
    if few and video["num_fake"]:
        notes.append(
            f"Of {count_of(video['num_real'], 'real video')}, {' and '.join(few)} is less than "
            "one: those rows say how many fakes score above every real one, and have no interval."
        )
    auc, low = video["auc"]["value"], video["auc"]["low"]
    if low is not None and min(video["num_real"], video["num_fake"]) < FEW:
        notes.append(
            f"With fewer than {FEW} videos of a class, intervals hold the truth less often than 95 "
            "times of 100."
        )
    if low is not None and (1 - auc) * min(video["num_real"], video["num_fake"]) < 1:
        notes.append(
            "So near to 1, with so few videos, the interval of the AUC is too narrow: it knows "
            "only of errors that were seen."
        )
    return " ".join(notes)


def compare_in_words(level: str, found: dict | None) -> str:
    """Say how much two detectors differ, by videos or by faces."""
    if found is None:
        return f"{level}: a difference of AUC is undefined, one class lacks"
    text = (
        f"{level}: AUC {found['auc']:.3f} beside {found['other_auc']:.3f}, difference "
        f"{format_estimate(found['difference'])}"
    )
    if found["difference"]["low"] is None:
        return f"{text}, too few videos or errors for a test"
    return text if found["p"] is None else f"{text}, p = {found['p']:.3g}"


def tell_calibration(report: dict) -> str:
    """Say how far the scores are probabilities, and how they are read."""
    protocol, error = report["protocol"], report["calibration"]
    text = (
        f"Expected calibration error: {error['frame_ece']:.3f} of faces, each video counting the "
        f"same, and {error['video_ece']:.3f} of videos."
    )
    calibration = read_calibrated(protocol)
    if calibration is None:
        if protocol.get("calibration"):
            return f"{text} Whether the scores are calibrated is not known here."
        return f"{text} The scores are not calibrated: `jdfd-keras calibrate` does that."
    text += (
        f" The scores are calibrated, with a temperature of {calibration.temperature:.3g}, on "
        f"{calibration.num_real} real and "
        f"{count_of(calibration.num_fake, 'fake validation video')} of {cell(calibration.data)}; "
        f"the error of faces there was {calibration.ece_before:.3f} "
        f"before and {calibration.ece_after:.3f} after."
    )
    if calibration.ece_after > calibration.ece_before and calibration.temperature > 1:
        text += (
            " It rose: so few videos cannot show that scores are as sure as they say, and the "
            "temperature makes them more careful."
        )
    if calibration.uncertain_from < calibration.uncertain_to:
        text += (
            f" A verdict between {calibration.uncertain_from:.3g} and "
            f"{calibration.uncertain_to:.3g} is `uncertain`."
        )
    if protocol.get("split") == "val":
        text += " If these are the videos that calibrated it, these errors flatter."
    return text


def tell_reconstruction(report: dict) -> str:
    """Say whether the decoder has learned more than the mean face."""
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


def tell_limits(report: dict) -> str:
    """Say what the numbers do not say, as a list."""
    protocol, video = report["protocol"], report["video"]
    fewest = min(video["num_real"], video["num_fake"])
    weight = f": one video is {1 / fewest:.1%} of it" if fewest else ""
    lines = [
        "They hold for these videos, these manipulations and this compression. Detectors do "
        "markedly worse on data sets they were not trained on.",
        "The intervals say how other videos of the same kind would change them, not other kinds "
        "of video, nor another training. The smaller class has "
        f"{count_of(fewest, 'video')}{weight}.",
        "Faces of one video resemble each other, so many faces are not many independent trials: "
        "judge by the videos.",
    ]
    if protocol.get("repeated_rows"):
        lines.append(_tell_repeated(protocol))
    if not protocol.get("calibration"):
        lines.append("A score is the network's output as trained, not a calibrated probability.")
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
            f"They leave out {len(report['excluded'])} of "
            f"{count_of(report['coverage']['num_videos'], 'video')}, which gave no face and may "
            "well be the harder ones."
        )
    return "\n".join(f"- {line}" for line in lines)
