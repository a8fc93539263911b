"""An evaluation or a calibration in words: the report as Markdown, and lines for a terminal.

Takes a `Report` or a `CalibrationResult`; computes nothing. The words are in the templates. The
facts about a media file are one line of any report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.io.console import plural, printable
from jdfd_keras.reporting.templating import render_template

if TYPE_CHECKING:  # a page about verdicts needs none of them
    from jdfd_keras.evaluation.calibrate import CalibrationResult
    from jdfd_keras.evaluation.eval_data import Protocol
    from jdfd_keras.evaluation.report import Report


def render_markdown(report: "Report", figures: Sequence[str] = ()) -> str:
    """Return a report as Markdown, with a line feed at its end.

    Args:
        report: As `evaluate` returns it.
        figures: Names of the figures next to the page, without suffix.

    Example:
        >>> from jdfd_keras.evaluation.report import load_report
        >>> render_markdown(load_report("report")).splitlines()[0]
        '# run on prepared, split test'
    """
    title = title_of(report.protocol)
    return render_template("report.md.j2", report=report, title=title, figures=figures)


def summarize(report: "Report") -> str:
    """Return the main metrics as a few lines for a terminal.

    Example:
        >>> from jdfd_keras.evaluation.report import load_report
        >>> print(summarize(load_report("report")))
        videos: AUC ..., EER ..., accuracy ... (1 real, 1 fake)
        faces: AUC ..., EER ..., accuracy ... (4 real, 4 fake)
    """
    return render_template("evaluation_summary.txt.j2", report=report).rstrip()


def summarize_calibration(result: "CalibrationResult") -> str:
    """Return a calibration as a few lines for a terminal.

    Example:
        >>> from jdfd_keras.evaluation.calibrate import calibrate
        >>> print(summarize_calibration(calibrate("run", "prepared", overwrite=True)))
        validation: 2 real and ... of prepared, by the largest person of each...
        scores at equal priors (half of all files are fake): temperature ...
    """
    values = {"result": result, "unattainable": UNATTAINABLE}
    return render_template("calibration_summary.txt.j2", **values).rstrip()


def describe_media(info: MediaInfo) -> str:
    """Return the facts that a file states about itself on one line; "" if it states none.

    Example:
        >>> describe_media(MediaInfo("png", "png", "RGB", 640, 360, num_frames=1))
        'png, png RGB, 640 x 360'
        >>> h264 = MediaInfo("mp4", "h264", "yuv420p", 640, 360, 25.0, 50, 2.0, bit_rate=912_345)
        >>> describe_media(h264)
        'mp4, h264 yuv420p, 640 x 360, 25 frames/s, 50 frames, 2.0 s, 912 kbit/s'
    """
    is_video = info.duration_s > 0
    facts = (
        info.container,
        f"{info.codec} {info.pixel_format}".strip(),
        f"JPEG quality {info.jpeg_quality}" if info.jpeg_quality else "",
        f"{info.width} x {info.height}" if info.width else "",
        f"pixels {info.sample_aspect_ratio}" if info.sample_aspect_ratio else "",
        info.orientation,
        "interlaced" if info.interlaced else "",
        f"{info.frame_rate:.5g} frames/s" if info.frame_rate else "",
        plural(info.num_frames, "frame") if is_video and info.num_frames else "",
        f"{info.duration_s:.1f} s" if is_video else "",
        info.colour.replace(",", ""),
        f"{info.bit_rate / 1000:.0f} kbit/s" if info.bit_rate else "",
        info.encoder,
    )
    return printable(", ".join(filter(None, facts)))


def title_of(protocol: "Protocol") -> str:
    """Return a title with the model, the data, the split and, if not official, its split table.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import Protocol
        >>> title_of(Protocol(model="run", data={"ffpp": None}, split="test", leakage="none"))
        'run on ffpp, split test'
    """
    names = list(protocol.data)
    data = ", ".join(names) if len(names) <= 3 else f"{len(names)} datasets"
    split = f", split {protocol.split}" if protocol.split else ""
    if protocol.split == "all":
        split = ", all faces"
    # One table for all datasets.
    from jdfd_keras.datasets.split_tables import OFFICIAL

    tables = {Path(one.split_table).name for one in protocol.data.values() if one} - {"", OFFICIAL}
    split += "".join(f" of {name}" for name in tables)
    return f"{protocol.model}{f' on {data}' if data else ''}{split}"
