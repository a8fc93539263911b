"""Verdicts as one page that can be handed on: what was said, and on what grounds.

Takes the dict that `predict_files` gives and the scorer; writes HTML with its pictures inside.
"""

import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.client.metadata import Calibration
from jdfd_keras.inference.backends import Scorer
from jdfd_keras.inference.verdict import (
    VERDICTS,
    deciding_faces,
    describe_borders,
    find_worst,
    tell_verdict,
)
from jdfd_keras.io.console import track
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction.result_folder import MOST_SHOWN, rank
from jdfd_keras.reporting.markdown import Marked, cell, table, write_page
from jdfd_keras.reporting.render_file import Explainer, describe_file, score_of
from jdfd_keras.reporting.verdict_text import count_of

# Where the borders come from, behind them.
BORDERS = {
    "calibrated": ", as calibrated",
    "threshold": ", one threshold, as asked for",
    "0.5": ": no more than a habit, as the model is not calibrated",
}
LIMITS = (
    "**A score is no proof.** It says how much a face looks, to this detector, like the fakes it "
    "was trained on rather than the reals. Kinds of manipulation it has not seen, strong "
    "compression, poor light and small or turned faces mislead it in both directions. `real` "
    "means that nothing was found, not that nothing was done; `uncertain` means that it cannot "
    "tell. Faces alone are judged: neither sound nor background, nor what the film claims. "
    "Seek other evidence (source, metadata, context, a second method) before anybody is "
    "accused.",
    "**A frame beside its map.** The brighter a place on the right, the more it raised this "
    "frame's score at the network's last convolution, which sees in coarse blocks: each map "
    "is scaled to the strongest place of its own frame, so that two maps cannot be compared in "
    "strength; how sure the detector is, the score says. A map tells where the network looked. "
    "It does not mark what was altered, it can point to hair or an edge, and it does not show "
    "what spoke for real. A dark map means that little or nothing spoke for fake.",
)


def write_report(
    path: str | Path,
    result: dict,
    scorer: Scorer,
    faces: FaceOptions,
    read_strongest: Callable[[str], np.ndarray],
) -> None:
    """Write the page.

    Args:
        path: The .html file, replaced once the new one is whole.
        result: What `predict_files` gives.
        scorer: What the verdicts were made by; explains the strongest faces if it can.
        faces: How faces were taken.
        read_strongest: From a file's path to the crops of its strongest faces, uint8[n, size,
            size, 3], in the order of the verdict's `strongest`.

    Raises:
        OSError: If the file cannot be written. Where the scorer cannot be asked for maps, the page
            shows faces without, and says so.
    """
    path = Path(path)
    shown = sorted(result["files"], key=rank, reverse=True)[:MOST_SHOWN]
    drawn = shown
    if sum(bool(verdict["faces"]) for verdict in shown) > 1:
        drawn = track(shown, "drawing the report", len(shown), "files")
    explainer = Explainer(scorer.explain)
    # A folder of its own beside the page: no name in it can be that of a user's file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        sections = [*_overview(result, len(shown))]
        for number, verdict in enumerate(drawn, start=1):
            place = Path(folder) / str(number)
            sections += describe_file(verdict, explainer, read_strongest(verdict["path"]), place)
        sections += ["## What the verdicts rest on", _describe_setup(result, scorer, faces)]
        sections += ["## What they do not say", *LIMITS]
        page = Path(folder) / "page.html"
        write_page(page, "\n\n".join(sections) + "\n")
        os.replace(page, path)


def _overview(result: dict, num_shown: int) -> Iterator[str]:
    files, failed, passed_over = result["files"], result["failed"], result.get("passed_over")
    name = count_of(len(result["paths"]), "file")
    yield f"# Verdict on {cell(Path(result['paths'][0]).name) if name == '1 file' else name}"
    counts = Counter(verdict["verdict"] for verdict in files)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    parts += [f"{len(failed)} without a verdict"] if failed else []
    if len(result["paths"]) == len(files) == 1:
        parts = [tell_verdict(files[0])]
    yield f"**{'; '.join(parts)}.** A score is no proof: see the end of this page."
    if passed_over:
        yield (
            f"Passed over in folders: {count_of(passed_over, 'file')}, no video or image by suffix."
        )
    if len(files) > 1:
        rows = [
            (
                verdict["path"],
                Marked(f"**{verdict['verdict']}**"),
                score_of(verdict, find_worst(verdict)),
                sum(track["decides"] for track in verdict["tracks"]),
                len(deciding_faces(verdict)),
                verdict["num_frames"],
                f"{verdict['duration_s']:.1f} s" if verdict["duration_s"] else "still",
            )
            for verdict in files
        ]
        header = ("file", "verdict", "score", "people", "faces", "frames", "duration")
        yield table(header, rows, "llrrrrr")
    if failed:
        yield "Without a verdict:"
        yield table(("file", "reason"), [(entry["path"], entry["error"]) for entry in failed])
    if num_shown < len(files):
        yield f"Below are the {num_shown} most suspicious of them, the highest score first."


def _describe_setup(result: dict, scorer: Scorer, faces: FaceOptions) -> str:
    known = scorer.description
    version = f"version {known.version}" if known.version else "not exported"
    rows = [
        ("page written", datetime.now().astimezone().isoformat(" ", "seconds")),
        ("by", f"jdfd-keras {jdfd_keras.__version__}"),
        ("model", f"{known.name}, {version}"),
        ("where it was asked", scorer.name),
        ("SHA-256 of its weights", known.digest),
    ]
    if any(verdict["duration_s"] for verdict in result["files"]):
        frames = f"{faces.frames_per_video} of each video, spread evenly"
        if faces.every:
            frames = "all" if faces.every == 1 else f"one of {faces.every}"
        rows.append(("frames", frames))
    rows += [
        ("people judged", faces.tracks),
        ("face detector", faces.detector),
        ("faces", f"{faces.alignment}, margin {faces.margin:g}, {faces.face_size} px"),
    ]
    if result["files"]:
        source = BORDERS.get(result.get("made_with", {}).get("borders"), "")
        rows.append(("verdicts", describe_borders(result["files"][0]) + source))
    return table(("what", "which"), [*rows, *_describe_calibration(known.calibration)])


def _describe_calibration(calibration: Calibration | None) -> Iterator[tuple[str, str]]:
    if calibration is None:
        yield "calibration", "none: the scores are no probabilities"
        return
    real, fake, rate = calibration.num_real, calibration.num_fake, calibration.wanted_rate
    # A float's own error is no video.
    most_real, most_fake = (math.floor(rate * count + 1e-9) for count in (real, fake))
    yield (
        "calibration",
        f"on {count_of(real, 'real')} and {count_of(fake, 'fake')} of "
        f"{calibration.data or 'unnamed data'}: at most {most_real} of these {real} reals called "
        f"fake, and {most_fake} of these {fake} fakes called real ({rate:.0%})",
    )
    yield "temperature", f"{calibration.temperature:.3g}"
    before, after = calibration.ece_before, calibration.ece_after
    error = f"{before:.3f} before, {after:.3f} after (0 would be none)"
    if after > before:
        error += ": worse. So few videos cannot show that scores are as sure as they say"
    yield "calibration error of faces", error
