"""Verdicts for people: self-contained HTML pages with the evidence, or PDFs of them.

Takes Predictions. One file has one page; several files have an overview, with a page for each of
the most suspicious ones in a folder beside it. The words are in the templates.
"""

import base64
import dataclasses
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from markupsafe import Markup

from jdfd_keras.client.calibration import PRIOR
from jdfd_keras.faces.align import describe_crops
from jdfd_keras.inference.finding import describe_bound, describe_share, describe_thresholds
from jdfd_keras.inference.tracks import describe_segment
from jdfd_keras.inference.verdict import VERDICTS, Verdict, verdict_text
from jdfd_keras.io.console import printable
from jdfd_keras.io.files import atomic_path, check_no_result
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.evidence import MAX_GAP_S, FileEvidence, collect_evidence
from jdfd_keras.prediction.predict import Predictions
from jdfd_keras.reporting.file_report import FileReport, embed, file_name, report_file
from jdfd_keras.reporting.page_files import (
    PageFacts,
    describe_file_claims,
    describe_page,
    name_pages,
    needs_overview,
    page_style,
    player_beside,
    remove_pages,
    resolve_report,
    show_time,
    write_page_file,
)
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.reporting.verdict_figures import count_of_100, format_time, show_ratio

MAX_EMBEDDED_BYTES = 20_000_000  # of a video, which base64 makes a third larger
THUMBNAIL_WIDTH = 280
CAM_COLOUR_STEPS = 8


@dataclass(frozen=True)
class OverviewRow:
    """One file on the overview."""

    verdict: Verdict
    name: str
    thumbnail: str  # data URI, or ""
    ratio: str
    reason: str
    link: str  # relative URL, or "" for a file without a page
    page_name: str


def write_report(
    predictions: Predictions,
    path: str | Path,
    *,
    overwrite: bool = False,
    limits: LimitOptions | None = None,
    sources: Mapping[str, Path] | None = None,
    comparison: str = "",
) -> Path:
    """Write a page about verdicts, and for several files a folder of pages beside it.

    The files are read again for their frames, and videos for the player of their page; a large one
    is written beside the page.

    Args:
        predictions: Predictions of `predict_files`, with `explain=True` to show the top faces and
            their class-activation maps.
        path: The .html file; a folder, in which the page is `index.html`; or a .pdf file, which
            Chromium prints. The pages of several files are in a folder named after it.
        overwrite: Replace an existing page.
        limits: Limits of each file; the defaults if not given.
        sources: Where files are now, by their path in the verdict, if that does not lead to them.
        comparison: Relative URL of a page that compares these verdicts with those of other models.

    Returns:
        Path of the page.

    Raises:
        OSError: If the page cannot be written, or exists and must not be replaced, or a PDF is
            requested without Chromium.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["video.mp4"], model="run", explain=True)
        >>> write_report(predictions, "report.html")
        PosixPath('report.html')
        >>> "<video " in Path("report.html").read_text()
        True
    """
    path = resolve_report(path)
    is_print = path.suffix.lower() == ".pdf"
    folder = path.with_name(f"{path.stem}_files")
    has_overview = needs_overview(predictions)
    check_no_result(path, *([folder] if has_overview else []), overwrite=overwrite)
    path.parent.mkdir(exist_ok=True)
    page = describe_page(path, comparison)
    shown = predictions.most_suspicious
    names = name_pages(predictions, path.suffix)
    if has_overview:
        remove_pages(folder, path.suffix)  # of an earlier report, which is replaced
    if has_overview and shown:
        folder.mkdir(exist_ok=True)
    thumbnails: dict[str, str] = {}
    with TemporaryFolder() as videos:
        drawn = collect_evidence(
            shown, predictions.provenance, None if is_print else videos, limits, sources
        )
        for verdict, evidence in drawn if shown else ():
            top_faces = predictions.top_faces.get(verdict.path)
            report = report_file(verdict, predictions.provenance, top_faces, evidence)
            target = path
            if has_overview:
                target = folder / names[verdict.path]
                overview = "" if is_print else f"../{quote(path.name)}"
                report = dataclasses.replace(report, overview=overview)
                thumbnails[verdict.path] = _draw_thumbnail(verdict, evidence)
            report = _place_video(report, target, overwrite)
            write_page_file(target, _render_file(report, page))
    if has_overview:
        rows = _list_rows(predictions, names, thumbnails, folder.name, is_print)
        write_page_file(path, _render_overview(predictions, rows, page))
    return path


def _place_video(report: FileReport, target: Path, overwrite: bool) -> FileReport:
    """Embed the video in the page, or move it beside the page if it is large."""
    video = report.evidence.video
    if video is None:
        return report
    if video.stat().st_size <= MAX_EMBEDDED_BYTES:
        return dataclasses.replace(report, video=embed(video.read_bytes(), "video/mp4"))
    beside = player_beside(target)
    check_no_result(beside, overwrite=overwrite)
    with atomic_path(beside) as unfinished:
        shutil.move(video, unfinished)
    name = quote(beside.name)
    return dataclasses.replace(report, video=name, video_name=name)


def _render_file(report: FileReport, page: PageFacts) -> str:
    # Jinja2 removes the last line feed of a template, which the digest must not have either.
    script = render_template("verdict_script.js.j2").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sha256 = f"SHA-256 {report.verdict.sha256}"
    return render_template(
        "verdict_page.html.j2",
        file=report,
        page=page,
        style=page_style(f"{printable(report.name)}\n{sha256}"),
        script=Markup(script),
        script_hash=digest,
        prior=PRIOR,
        max_gap_s=MAX_GAP_S,
        cam_colours=_cam_colours() if report.has_maps else "",
        check_command=f"sha256sum -- {_quote_for_shell(report.name)}\n# {report.verdict.sha256}",
        show_time=show_time,
        count_of_100=count_of_100,
        describe_crops=describe_crops,
        describe_segment=describe_segment,
        describe_bound=describe_bound,
        describe_share=describe_share,
        describe_thresholds=describe_thresholds,
        embed=embed,
        format_time=format_time,
        verdict_text=verdict_text,
    )


def _render_overview(predictions: Predictions, rows: list[OverviewRow], page: PageFacts) -> str:
    counts = [
        (verdict, sum(file.verdict == verdict for file in predictions.files))
        for verdict in VERDICTS
    ]
    return render_template(
        "verdict_overview.html.j2",
        predictions=predictions,
        rows=rows,
        counts=counts,
        claims=describe_file_claims((row.name, row.verdict.credentials) for row in rows),
        page=page,
        style=page_style(f"{len(predictions.paths)} files"),
        describe_thresholds=describe_thresholds,
        file_name=file_name,
        format_time=format_time,
        show_time=show_time,
        verdict_text=verdict_text,
    )


def _cam_colours() -> str:
    from jdfd_keras.reporting.face_grids import blend_cam  # needs matplotlib

    steps = np.linspace(0, 1, CAM_COLOUR_STEPS)
    grey = np.full((1, 1, 3), 128, np.uint8)
    colours = [blend_cam(grey, np.full((1, 1), step))[0, 0] for step in steps]
    return ",".join("#" + bytes(colour.tolist()).hex() for colour in colours)


def _quote_for_shell(name: str) -> str:
    return "'" + printable(name).replace("'", "'\\''") + "'"


def _draw_thumbnail(verdict: Verdict, evidence: FileEvidence) -> str:
    worst = verdict.most_suspicious_track
    still = evidence.people.get(worst.track_id) if worst else None
    still = still or next(iter(evidence.stills), None)
    if still is None:
        return ""
    image: Any = cv2.imdecode(np.frombuffer(still.jpeg, np.uint8), cv2.IMREAD_COLOR)
    height = round(image.shape[0] * THUMBNAIL_WIDTH / image.shape[1])
    small = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    return embed(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes(), "jpeg")


def _list_rows(
    predictions: Predictions,
    names: dict[str, str],
    thumbnails: dict[str, str],
    folder: str,
    is_print: bool,
) -> list[OverviewRow]:
    """Return all files, the most suspicious first."""

    def make(verdict: Verdict) -> OverviewRow:
        name, likelihood = names.get(verdict.path, ""), verdict.likelihood
        return OverviewRow(
            verdict=verdict,
            name=file_name(verdict.path),
            thumbnail=thumbnails.get(verdict.path, ""),
            ratio=show_ratio(likelihood) if likelihood else "",
            reason="; ".join(verdict.reasons),
            # Chromium would make an absolute link of it in a PDF.
            link=f"{quote(folder)}/{quote(name)}" if name and not is_print else "",
            page_name=f"{folder}/{name}" if name else "",
        )

    ordered = sorted(predictions.files, key=lambda verdict: verdict.suspicion, reverse=True)
    return list(map(make, ordered))
