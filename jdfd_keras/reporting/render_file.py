"""The section of one file on the page: its verdict, time line, strongest faces and people.

Takes the fields of a Verdict and the crops of its strongest faces; gives Markdown, and the
pictures beside it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.inference.tracks import SURE
from jdfd_keras.inference.verdict import (
    NO_FACE,
    deciding_faces,
    describe_borders,
    doubt,
    find_part,
    find_worst,
    tell_verdict,
)
from jdfd_keras.reporting.charts import plot_time_line
from jdfd_keras.reporting.markdown import Marked, cell, table
from jdfd_keras.reporting.verdict_text import count_of

MOST_LINES = 6  # people in one time line; the others stand in the table
CROP_PX, GAP_PX = 240, 8  # side of a crop on the page, and between it and its map


class Explainer:
    """What explains faces, until it fails: a server that is gone is not asked again.

    Attributes:
        failure: Why there are no maps; empty as long as there are.
    """

    def __init__(self, explain: Callable[[np.ndarray], np.ndarray] | None):
        """Take the function; None where the model cannot explain."""
        self._explain = explain
        self.failure = "" if explain else "this model does not explain itself"

    def __call__(self, crops: np.ndarray) -> np.ndarray | None:
        """Give float32[n, size, size] of uint8[n, size, size, 3]; None once it has failed."""
        if not self.failure:
            try:
                return self._explain(crops)
            except OSError as error:
                self.failure = f"the model could not be asked ({error})"
        return None


def describe_file(
    verdict: dict, explainer: Explainer, crops: np.ndarray, place: Path
) -> Iterator[str]:
    """Write the section of one file.

    Args:
        verdict: The fields of a Verdict.
        explainer: Gives the maps.
        crops: uint8[n, size, size, 3], its strongest faces; none where none are kept.
        place: Without a suffix; its pictures go beside it.
    """
    yield f"## {cell(verdict['path'])}"
    yield _tell_basis(verdict)
    yield from (f"Warning: {cell(warning)}." for warning in verdict["warnings"])
    if verdict["faces"]:
        if verdict["duration_s"]:
            _plot_time_line(place, verdict)
            yield f"![Score over time, a line for each person]({place.name}.png)"
        yield from _show_strongest(verdict, explainer, crops, place)
        yield "All people in it, a track each:"
        yield _track_table(verdict)
        yield (
            "`face detector` is its own score, the mean over the track: the higher the surer, "
            f"below {SURE:g} it is perhaps no face."
        )
    yield _identify(verdict)


def score_of(verdict: dict, track: dict | None) -> str:
    """Write the mean of a track, and what of it made the track uncertain; nothing of None."""
    if track is None:
        return ""
    part = find_part(verdict, track)
    return f"{track['score']:.3f}" + (f" (a part {part.score:.3f})" if part else "")


def _tell_basis(verdict: dict) -> str:
    looked_at = f"the {count_of(verdict['num_frames'], 'frame')} looked at"
    if not verdict["duration_s"]:
        looked_at = "the picture"
    if verdict["verdict"] == NO_FACE:
        return f"**No face** was found in {looked_at}: there is nothing to judge."
    deciding = [track for track in verdict["tracks"] if track["decides"]]
    others = [str(track["track_id"]) for track in verdict["tracks"] if not track["decides"]]
    people = count_of(len(deciding), "person").replace("persons", "people")
    faces = count_of(len(deciding_faces(verdict)), "face")
    worst = find_worst(verdict)
    if worst and find_part(verdict, worst):
        were = "was" if len(deciding) == 1 else "were"
        basis = f"its mean is {worst['score']:.3f}. Judged {were} {people}, by"
    elif len(deciding) == 1:
        basis = "the mean of one person, from" if verdict["duration_s"] else "one person,"
    else:
        basis = f"the highest {'mean' if verdict['duration_s'] else 'score'} of {people}, from"
    text = f"**{tell_verdict(verdict)}** ({describe_borders(verdict)}): {basis} {faces} in "
    text += f"{looked_at}."
    if others:
        text += (
            f" Perhaps no face, and so without a part in the verdict: track {', '.join(others)}."
        )
    return text


def _plot_time_line(place: Path, verdict: dict) -> None:
    by_track = defaultdict(list)
    for face in verdict["faces"]:
        by_track[face["track_id"]].append(face)
    highest = sorted(verdict["tracks"], key=lambda track: (-track["decides"], -track["score"]))
    lines = {
        f"track {track['track_id']}, mean {track['score']:.3f}{doubt(track)}": (
            [face["time_s"] for face in by_track[track["track_id"]]],
            [face["score"] for face in by_track[track["track_id"]]],
        )
        for track in highest[:MOST_LINES]
    }
    worst = find_worst(verdict)
    part = worst and find_part(verdict, worst)
    plot_time_line(
        place,
        lines,
        duration_s=verdict["duration_s"],
        uncertain=(verdict["uncertain_from"], verdict["uncertain_to"]),
        part=(part.start_s, part.end_s) if part else None,
    )


def _show_strongest(
    verdict: dict, explainer: Explainer, crops: np.ndarray, place: Path
) -> Iterator[str]:
    if not len(crops):
        yield "No face is shown here: none was kept or asked for (`--explain`)."
        return
    strongest = [verdict["faces"][index] for index in verdict["strongest"][: len(crops)]]
    maps = explainer(crops)
    shown = "The face that scores" if len(strongest) == 1 else "The faces that score"
    if maps is None:
        yield f"{shown} highest, without maps: {cell(explainer.failure)}."
    elif verdict["verdict"] == "fake":
        yield f"{shown} highest, and where the network saw what spoke for fake:"
    else:
        yield (
            f"{shown} highest, and what raised the score most; it was not enough to call the file "
            "fake:"
        )
    rows = []
    for number, face in enumerate(strongest):
        name = f"{place.name}-{number}.png"
        picture = _enlarge(crops[number])
        if maps is not None:
            gap = np.full((CROP_PX, GAP_PX, 3), 255, np.uint8)
            picture = np.concatenate([picture, gap, _lay_over(picture, maps[number])], axis=1)
        _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        place.with_name(name).write_bytes(encoded.tobytes())
        moment = (f"{face['time_s']:.2f} s", face["frame_index"]) if verdict["duration_s"] else ()
        caption = f"track {face['track_id']}, score {face['score']:.3f}"
        image = Marked(f"![{caption}]({name})")
        rows.append((image, *moment, face["track_id"], f"{face['score']:.3f}"))
    moment = ("time", "frame") if verdict["duration_s"] else ()
    header = ("face" if maps is None else "face, and map beside it", *moment, "track", "score")
    yield table(header, rows, "l" + "r" * (len(header) - 1))


def _enlarge(crop: np.ndarray) -> np.ndarray:
    is_small = len(crop) < CROP_PX
    how = cv2.INTER_CUBIC if is_small else cv2.INTER_AREA
    return cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=how)


def _lay_over(face: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Lay a map, half transparent, over a grey face; as the figures of `evaluate` do."""
    activation = cv2.resize(activation, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)
    levels = (255 * np.clip(activation, 0, 1)).round().astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = face.mean(axis=2, keepdims=True)
    return ((grey + colours) / 2).round().astype(np.uint8)


def _track_table(verdict: dict) -> str:
    is_video = verdict["duration_s"] > 0
    rows = []
    for track in verdict["tracks"]:
        said = track["verdict"] if track["decides"] else f"({track['verdict']}{doubt(track)})"
        seen = (f"{track['start_s']:.2f} to {track['end_s']:.2f} s",) if is_video else ()
        faces = (track["num_faces"],) if is_video else ()
        score, confidence = score_of(verdict, track), f"{track['confidence']:.2f}"
        rows.append((track["track_id"], said, score, *faces, *seen, confidence))
    of_video = ("faces", "seen") if is_video else ()
    header = ("track", "verdict", "mean score" if is_video else "score", *of_video, "face detector")
    return table(header, rows, "rl" + "r" * (len(header) - 2))


def _identify(verdict: dict) -> str:
    parts = [f"{verdict['width']} x {verdict['height']} pixels"]
    parts += [f"{verdict['duration_s']:.1f} s"] if verdict["duration_s"] else []
    parts += [_write_bytes(verdict["file_bytes"])] if verdict.get("file_bytes") else []
    parts += [f"SHA-256 `{verdict['sha256']}`"]
    parts += [f"judged {verdict['judged']}"] if verdict.get("judged") else []
    return f"The file: {', '.join(parts)}."


def _write_bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
