"""The sentences of a report: the main result, how it was obtained, and its limits.

Takes a `Report` or its protocol; returns Markdown, or plain lines for a terminal. Computes nothing
but the shares that it states.
"""

from jdfd_keras.evaluation.calibrate import TEMPERATURES, CalibrationResult
from jdfd_keras.evaluation.delong import Difference
from jdfd_keras.evaluation.eval_data import Protocol
from jdfd_keras.evaluation.metrics import FPR_ALLOWED, MEASURED, Estimate
from jdfd_keras.evaluation.report import Report
from jdfd_keras.io.console import plural
from jdfd_keras.reporting.markdown import cell

FEW_VIDEOS = 20  # videos of a class, below which intervals are too narrow
LOW_COVERAGE = (
    f"With fewer than {FEW_VIDEOS} videos of a class, the 95 % intervals cover the true value less "
    "often than 95 % of the time."
)


def format_value(value: float | None) -> str:
    """Format a metric with three decimals; None is `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def format_estimate(estimate: Estimate) -> str:
    """Format a metric with its interval, if it has one: `0.912 [0.880, 0.940]`."""
    text = format_value(estimate.value)
    if estimate.low is None:
        return text
    return f"{text} [{estimate.low:.3f}, {estimate.high:.3f}]"


def summarize(report: Report) -> str:
    """Return the main metrics as a few lines for a terminal.

    Args:
        report: As `evaluate` returns it.

    Returns:
        One line for videos, one for faces, and one each for a comparison, for repeated rows and
        for excluded videos, if any.
    """
    lines = []
    for name, level in (("videos", report.video), ("faces", report.frame)):
        values = ", ".join(
            f"{label} {format_estimate(estimate)}"
            for label, estimate in (
                ("AUC", level.auc),
                ("EER", level.eer),
                ("accuracy", level.accuracy),
            )
        )
        lines.append(f"{name}: {values} ({level.num_real} real, {level.num_fake} fake)")
    if report.comparison:
        compared = describe_comparison("videos", report.comparison.video)
        lines.append(f"compared with {report.comparison.compared_with}: {compared}")
    if report.protocol.repeated_rows:
        lines.append(f"note: {_describe_repeated(report.protocol)}")
    if report.excluded:
        lines.append(f"without a score: {plural(len(report.excluded), 'video')}; see the report")
    return "\n".join(lines)


def summarize_calibration(result: CalibrationResult) -> str:
    """Return a calibration as a few lines for a terminal.

    Args:
        result: As `calibrate` returns it.
    """
    calibration, before, after = result.calibration, result.before, result.after
    num_real, num_fake = calibration.num_real, calibration.num_fake
    lines = [
        f"validation: {_count_classes(num_real, num_fake)} of {calibration.data}",
        f"temperature {calibration.temperature:.3g}: calibration error of faces "
        f"{before.frame_ece:.3f} -> {after.frame_ece:.3f}, of videos "
        f"{before.video_ece:.3f} -> {after.video_ece:.3f}",
        f"threshold {calibration.threshold:.3g} for a false positive rate of at most "
        f"{calibration.target_error_rate:g}",
        f"uncertain from {calibration.uncertain_from:.3g} to {calibration.uncertain_to:.3g}; "
        + "; ".join(
            f"{name} videos: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}"
            for name, counts in result.verdicts.items()
        ),
    ]
    if calibration.target_error_rate * min(num_real, num_fake) < 1:
        lines.append(
            f"note: a rate of {calibration.target_error_rate:g} is less than one video of the "
            "smaller class, so the threshold is set by a single video; use more validation videos"
        )
    if calibration.temperature > 0.99 * TEMPERATURES[1]:
        lines.append(
            "note: these scores hardly depend on the label: no temperature is high enough. Train "
            "longer, or check the training data"
        )
    if after.frame_ece > before.frame_ece and calibration.temperature > 1:
        lines.append(
            "note: calibration increased the calibration error on this small set; the temperature "
            "is regularised towards less confident scores"
        )
    return "\n".join(lines)


def _count_classes(num_real: int, num_fake: int) -> str:
    return f"{num_real} real and {plural(num_fake, 'fake video')}"


def _describe_repeated(protocol: Protocol) -> str:
    rows = plural(protocol.repeated_rows, "row")
    verb = "repeats" if protocol.repeated_rows == 1 else "repeat"
    return (
        f"{rows} {verb} video and score of another row. Without the column frame_index, duplicates "
        "and faces with equal scores cannot be distinguished."
    )


def title_of(protocol: Protocol) -> str:
    """Return a title with the model, the data and the split."""
    names = list(protocol.data)
    data = ", ".join(names) if len(names) <= 3 else f"{len(names)} datasets"
    split = f", split {protocol.split}" if protocol.split else ""
    return f"{protocol.model}{f' on {data}' if data else ''}{split}"


def headline(report: Report) -> str:
    """State the video AUC, and whether it is better than chance."""
    video = report.video
    num_videos = video.num_real + video.num_fake
    value, low, high = video.auc.value, video.auc.low, video.auc.high
    if value is None:
        only = "real" if video.num_real else "fake"
        subject = (
            "The only scored video is" if num_videos == 1 else f"All {num_videos} scored videos are"
        )
        return f"**{subject} {only}**, so the AUC is undefined."
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    text = (
        f"**Video AUC {value:.3f}**{interval} over {num_videos} videos "
        f"({video.num_real} real, {video.num_fake} fake, "
        f"{plural(report.coverage.num_faces, 'face')}): the probability that a fake video scores "
        "higher than a real one. 0.5 is chance, 1 is perfect."
    )
    if low is None and value > 0:
        return f"{text} {_why_no_interval(report)}"
    if low is None or high < 0.5:
        return (
            f"{text} **It is worse than chance**: check whether labels or scores are inverted. "
            "Label 1 must be fake, and a higher score more fake."
        )
    if low <= 0.5:
        return f"{text} **This does not show that it is better than chance.**"
    return text


def _why_no_interval(report: Report) -> str:
    video = report.video
    if not report.protocol.n_resamples:
        return "There is no interval: the bootstrap was turned off."
    if min(video.num_real, video.num_fake) < 2:
        return "There is no interval: it needs two videos of each class."
    if video.auc.value < 1:
        return "There is no interval: every resample has the same AUC."
    return (
        "There is no interval: these videos are separated perfectly, and a bootstrap "
        "only reflects observed errors. The AUC is still not certain: it rests on "
        f"{_count_classes(video.num_real, video.num_fake)}."
    )


def describe_setup(protocol: Protocol) -> str:
    """State the training data, the test data, how faces were extracted, and leakage."""
    trained, tested = "The training data is unknown.", []
    if training := protocol.training:
        trained = (
            f"Trained on {cell(training.data.name)} ({training.split.split} splits, seed "
            f"{training.train.seed})."
        )
    for name, data in protocol.data.items():
        if data and data.faces and data.split:
            faces = data.faces
            frames = (
                f"one frame of {faces.every}"
                if faces.every
                else f"up to {plural(faces.frames_per_video, 'frame')} per video"
            )
            tested.append(
                f"Tested on {cell(name)} ({data.split.split} splits): {frames}, faces detected by "
                f"{faces.detector}, aligned with {faces.alignment}, {faces.face_size} pixels."
            )
    return " ".join([trained, *tested, f"Leakage: {cell(protocol.leakage)}."])


def describe_aggregation(protocol: Protocol) -> str:
    """State how face scores are aggregated into a video score."""
    if protocol.aggregation == "track":
        return "A video's score is the highest mean score of its tracks, one for each person."
    name = {"max": "maximum"}.get(protocol.aggregation, protocol.aggregation)
    return f"A video's score is the {name} of its face scores."


def describe_table(report: Report) -> str:
    """State how to read the table of metrics, and which of them rest on few videos."""
    protocol, video = report.protocol, report.video
    notes = []
    levels = (report.frame, report.video)
    if any(getattr(level, metric).low is not None for level in levels for metric in MEASURED):
        notes.append(f"In brackets: {protocol.intervals}.")
    notes.append(describe_aggregation(protocol))
    if protocol.used_calibration and protocol.aggregation != "track":
        notes.append(
            "The threshold was calibrated on the highest mean score of the tracks of a video; with "
            "one track and the mean this is the same."
        )
    few = [f"{100 * rate:g} %" for rate in FPR_ALLOWED.values() if 0 < video.num_real < 1 / rate]
    if few and video.num_fake:
        verb, rows = ("is", "that row gives") if len(few) == 1 else ("are", "those rows give")
        real_videos = plural(video.num_real, "real video")
        notes.append(
            f"With {real_videos}, {' and '.join(few)} {verb} less than one video, so {rows} the "
            "share of fakes that score above every real one, without an interval."
        )
    fewest = min(video.num_real, video.num_fake)
    if video.auc.low is not None and fewest < FEW_VIDEOS:
        notes.append(LOW_COVERAGE)
    if video.auc.low is not None and (1 - video.auc.value) * fewest < 1:
        notes.append(
            "With so few videos and an AUC so close to 1, the interval of the AUC is too narrow: "
            "it only reflects observed errors."
        )
    return " ".join(notes)


def describe_comparison(level: str, result: Difference | None) -> str:
    """State how much the AUCs of two detectors differ, by `videos` or by `faces`."""
    if result is None:
        return f"{level}: the difference in AUC is undefined, one class is absent"
    text = (
        f"{level}: AUC {result.auc:.3f} and {result.other_auc:.3f}, difference "
        f"{format_estimate(result.difference)}"
    )
    if result.difference.low is None:
        return f"{text}, too few videos or errors for a test"
    return text if result.p is None else f"{text}, p = {result.p:.3g}"


def describe_calibration(report: Report) -> str:
    """State the calibration error, and how scores are corrected and read."""
    protocol, error, calibration = report.protocol, report.calibration, report.protocol.calibration
    text = (
        f"Expected calibration error: {error.frame_ece:.3f} of faces, with equal weight for each "
        f"video, and {error.video_ece:.3f} of videos."
    )
    if calibration is None:
        if not protocol.model_digest:
            return f"{text} Whether the scores are calibrated is unknown."
        return f"{text} The scores are not calibrated: run `jdfd-keras calibrate`."
    text += (
        f" The scores are calibrated with a temperature of {calibration.temperature:.3g}, fitted "
        f"on {calibration.num_real} real and "
        f"{plural(calibration.num_fake, 'fake validation video')} of {cell(calibration.data)}; "
        f"the error of faces there was {calibration.ece_before:.3f} before and "
        f"{calibration.ece_after:.3f} after."
    )
    if calibration.ece_after > calibration.ece_before and calibration.temperature > 1:
        text += (
            " It increased on this small set; the temperature is regularised towards less "
            "confident scores."
        )
    if calibration.uncertain_from < calibration.uncertain_to:
        text += (
            f" A score between {calibration.uncertain_from:.3g} and "
            f"{calibration.uncertain_to:.3g} is `uncertain`."
        )
    if protocol.split == "val":
        text += " If the calibration was fitted on these videos, these errors are too optimistic."
    return text


def describe_reconstruction(report: Report) -> str:
    """State the error of the decoder, and whether it is better than the mean face."""
    error = report.reconstruction
    text = (
        f"Mean squared error of the decoder: {error.mse:.4f}. Always returning the mean face "
        f"would yield {error.mean_face_mse:.4f} (pixels in -1..1)."
    )
    if error.mse < error.mean_face_mse:
        explained = 1 - error.mse / error.mean_face_mse
        text += f" The decoder explains {explained:.1%} of the variance between faces."
    else:
        text += (
            " **The decoder is no better than the mean face**: it has learned nothing that "
            "distinguishes faces."
        )
    if error.frame_auc is not None:
        text += f" The error as the only score has a frame AUC of {error.frame_auc:.3f}."
    return text


def describe_limits(report: Report) -> str:
    """State the limits of the metrics, as a list."""
    protocol, video = report.protocol, report.video
    fewest = min(video.num_real, video.num_fake)
    weight = f": one video is {1 / fewest:.1%} of it" if fewest else ""
    lines = [
        "They hold for these videos, manipulations and compressions. Detectors perform markedly "
        "worse on datasets they were not trained on.",
        *(
            [
                "The intervals reflect other videos of the same kind, not other kinds of video or "
                "another training."
            ]
            if video.auc.low is not None
            else []
        ),
        f"The smaller class has {plural(fewest, 'video')}{weight}.",
        "Faces of one video are similar, so many faces are not many independent samples: rely on "
        "the metrics of videos.",
    ]
    if protocol.repeated_rows:
        lines.append(_describe_repeated(protocol))
    if protocol.model_digest and not protocol.calibration:
        lines.append("A score is the uncalibrated output of the network, not a probability.")
    if protocol.split == "val":
        lines.append(
            "The checkpoint was chosen on validation data, so metrics on this split are too "
            "optimistic."
        )
    elif protocol.split == "train":
        lines.append(
            "The network was trained on this split: the metrics show memorisation, not "
            "generalisation."
        )
    lines += _describe_data_differences(protocol)
    if report.excluded:
        lines.append(
            f"They exclude {len(report.excluded)} of "
            f"{plural(report.coverage.num_videos, 'video')}, in which no face was found and "
            "which may be harder."
        )
    return "\n".join(f"- {line}" for line in lines)


def _describe_data_differences(protocol: Protocol) -> list[str]:
    """State the properties of the test data that make the metrics too high or too low."""
    lines, learned = [], protocol.training_faces
    for name, data in protocol.data.items():
        if data and data.split and data.split.split == "paper":
            lines.append(
                f"{cell(name)} was split by single faces, as in the paper: its videos are in "
                "training as well, so the metrics are too optimistic."
            )
        if not (data and data.faces and learned):
            continue
        differing = [
            key for key, value in vars(data.faces).items() if getattr(learned, key) != value
        ]
        if differing:
            lines.append(
                f"The faces of {cell(name)} were extracted with other options than those of the "
                f"training ({', '.join(differing)}), which may cause some of the errors."
            )
    return lines
