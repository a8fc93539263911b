"""Verdicts as one page that can be handed on: what was said, and on what grounds.

Takes the dict that `predict_files` gives and the scorer; writes HTML with its pictures inside.
"""

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.evaluation.figures.faces import plot_explanations, plot_faces
from jdfd_keras.evaluation.figures.timeline import plot_time_line
from jdfd_keras.markdown import cell, table, write_page
from jdfd_keras.options import FaceOptions
from jdfd_keras.progress import track
from jdfd_keras.serving.scorers import Scorer
from jdfd_keras.serving.verdict.folder import MOST_SHOWN, rank
from jdfd_keras.serving.verdict.judge import NO_FACE, VERDICTS
from jdfd_keras.serving.verdict.text import count_of, describe_borders

MOST_LINES = 6  # people in one time line; the others stand in the table
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
        OSError: If the file cannot be written, or the scorer cannot be asked.
    """
    path = Path(path)
    shown = sorted(result["files"], key=rank, reverse=True)[:MOST_SHOWN]
    with tempfile.TemporaryDirectory() as folder:
        sections = [*_overview(result, len(shown))]
        numbered = enumerate(shown, start=1)
        for number, verdict in track(numbered, "drawing the report", len(shown), "files"):
            place = Path(folder) / str(number)
            sections += _describe_file(verdict, scorer, read_strongest(verdict["path"]), place)
        sections += ["## What the verdicts rest on", _describe_setup(result, scorer, faces)]
        sections += ["## What they do not say", *LIMITS]
        page = Path(folder) / "page.html"
        write_page(page, "\n\n".join(sections) + "\n")
        unfinished = path.with_name(f"unfinished-{path.name}")
        unfinished.write_bytes(page.read_bytes())
        os.replace(unfinished, path)


def _overview(result: dict, num_shown: int) -> Iterator[str]:
    files, failed = result["files"], result["failed"]
    name = count_of(len(result["paths"]), "file")
    yield f"# Verdict on {cell(Path(result['paths'][0]).name) if name == '1 file' else name}"
    counts = Counter(verdict["verdict"] for verdict in files)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    parts += [f"{len(failed)} without a verdict, as they cannot be judged"] if failed else []
    yield f"**{'; '.join(parts)}.** A score is no proof: see the end of this page."
    rows = [
        (
            verdict["path"],
            verdict["verdict"],
            _number(verdict["score"]),
            len(verdict["tracks"]),
            len(verdict["faces"]),
            verdict["num_frames"],
            f"{verdict['duration_s']:.1f} s" if verdict["duration_s"] else "still",
        )
        for verdict in files
    ]
    if files:
        header = ("file", "verdict", "score", "people", "faces", "frames", "duration")
        yield table(header, rows, "llrrrrr")
    if failed:
        yield "Without a verdict:"
        yield table(("file", "reason"), [(entry["path"], entry["error"]) for entry in failed])
    if num_shown < len(files):
        yield f"Below are the {num_shown} most suspicious of them, the highest score first."


def _describe_file(verdict: dict, scorer: Scorer, crops: np.ndarray, place: Path) -> Iterator[str]:
    """Write the section of one file; its pictures go beside `place`."""
    yield f"## {cell(verdict['path'])}"
    frames = count_of(verdict["num_frames"], "frame")
    if verdict["verdict"] == NO_FACE:
        yield f"**No face** was found in the {frames} looked at: there is nothing to judge."
    else:
        yield (
            f"**{verdict['verdict'].capitalize()}, score {verdict['score']:.3f}** "
            f"({describe_borders(verdict)}): the highest mean of "
            f"{count_of(len(verdict['tracks']), 'person').replace('persons', 'people')}, from "
            f"{count_of(len(verdict['faces']), 'face')} in the {frames} looked at."
        )
    yield from (f"Warning: {cell(warning)}." for warning in verdict["warnings"])
    if not verdict["faces"]:
        yield _identify(verdict)
        return
    if verdict["duration_s"]:
        _plot_time_line(place, verdict)
        yield f"![Score over time, a line for each person]({place.name}.png)"
    yield from _show_strongest(verdict, scorer, crops, place)
    yield _track_table(verdict)
    yield _identify(verdict)


def _identify(verdict: dict) -> str:
    size = f"{verdict['width']} x {verdict['height']} pixels"
    return f"The file: {size}, SHA-256 `{verdict['sha256']}`."


def _plot_time_line(place: Path, verdict: dict) -> None:
    by_track = defaultdict(list)
    for face in verdict["faces"]:
        by_track[face["track_id"]].append(face)
    highest = sorted(verdict["tracks"], key=lambda track: (-track["decides"], -track["score"]))
    lines = {
        f"track {track['track_id']}, mean {track['score']:.3f}"
        f"{'' if track['decides'] else ', perhaps no face'}": (
            [face["time_s"] for face in by_track[track["track_id"]]],
            [face["score"] for face in by_track[track["track_id"]]],
        )
        for track in highest[:MOST_LINES]
    }
    uncertain = verdict["uncertain_from"], verdict["uncertain_to"]
    plot_time_line(place, lines, duration_s=verdict["duration_s"], uncertain=uncertain)


def _show_strongest(verdict: dict, scorer: Scorer, crops: np.ndarray, place: Path) -> Iterator[str]:
    if not len(crops):
        return
    strongest = [verdict["faces"][index] for index in verdict["strongest"][: len(crops)]]
    captions = [
        f"{_moment(face, verdict)}track {face['track_id']}, score {face['score']:.3f}"
        for face in strongest
    ]
    name = f"{place.name}-strongest"
    picture = place.with_name(name)
    if scorer.explain is None:
        plot_faces(picture, list(crops), captions)
        yield "The faces that score highest; this model does not explain itself:"
    else:
        activation = scorer.explain(crops)
        plot_explanations(picture, list(crops), captions, activation=activation, columns=3)
        yield "The faces that score highest, and where in them the network saw what spoke for fake:"
    yield f"![{'; '.join(captions)}]({name}.png)"


def _track_table(verdict: dict) -> str:
    rows = [
        (
            track["track_id"],
            track["verdict"] if track["decides"] else f"({track['verdict']}; perhaps no face)",
            _number(track["score"]),
            track["num_faces"],
            f"{track['start_s']:.2f} to {track['end_s']:.2f} s" if verdict["duration_s"] else "",
            f"{track['confidence']:.2f}",
        )
        for track in verdict["tracks"]
    ]
    header = ("track", "verdict", "mean score", "faces", "seen", "face detector's score")
    return table(header, rows, "rlrrrr")


def _describe_setup(result: dict, scorer: Scorer, faces: FaceOptions) -> str:
    known, calibration = scorer.description, scorer.description.calibration
    version = f"version {known.version}" if known.version else "not exported"
    frames = f"{faces.frames_per_video} of each video, spread evenly"
    if faces.every:
        frames = "all" if faces.every == 1 else f"one of {faces.every}"
    rows = [
        ("written", datetime.now().astimezone().isoformat(" ", "seconds")),
        ("by", f"jdfd-keras {jdfd_keras.__version__}"),
        ("model", f"{known.name}, {version}"),
        ("where it was asked", scorer.name),
        ("SHA-256 of its weights", known.digest),
        ("frames", frames),
        ("people judged", faces.tracks),
        ("face detector", faces.detector),
        ("faces", f"{faces.alignment}, margin {faces.margin:g}, {faces.face_size} px"),
    ]
    if result["files"]:
        rows.append(("verdicts", describe_borders(result["files"][0])))
    if calibration is None:
        rows.append(("calibration", "none: the scores are no probabilities"))
    else:
        rows += [
            (
                "calibration",
                f"on {calibration.num_real} real and {calibration.num_fake} fake videos of "
                f"{calibration.data or 'unnamed data'}, no more than "
                f"{calibration.wanted_rate:.0%} of them misjudged either way",
            ),
            ("temperature", f"{calibration.temperature:.3g}"),
            ("calibration error of faces", f"{calibration.ece_after:.3f}"),
        ]
    return table(("what", "which"), rows)


def _moment(face: dict, verdict: dict) -> str:
    is_still = not verdict["duration_s"]
    return "" if is_still else f"{face['time_s']:.2f} s, frame {face['frame_index']}, "


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"
