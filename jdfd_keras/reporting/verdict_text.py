"""Verdicts for a terminal: the verdict, the time line and the people of each file.

Takes Predictions; the words are in the template.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jdfd_keras.faces.credentials import NOT_CHECKED, ContentCredentials
from jdfd_keras.inference.finding import describe_reason, describe_thresholds
from jdfd_keras.inference.verdict import VERDICTS, Verdict, verdict_text
from jdfd_keras.io.console import plural
from jdfd_keras.prediction.predict import Predictions
from jdfd_keras.reporting.templating import render_parts

MAX_BLOCKS = 40
BLOCKS, NO_FACE_BLOCK = "▁▂▃▄▅▆▇█", "·"
ASCII_BLOCKS, ASCII_NO_FACE_BLOCK = "0123456789", "."


def summarize(predictions: Predictions, page: str | Path | None = None) -> str:
    """Format predictions as lines for a terminal: verdict and reason, time line and people of each.

    The time line of a video shows the highest score of each moment, from the lowest block for 0 to
    a full one for 1, and a dot without a judged face; in tenths if stdout cannot encode blocks. A
    last line counts the verdicts on several files. Failures are listed without their reasons.

    Args:
        predictions: Predictions of `predict_files`.
        page: Page about them, to be named.

    Example:
        >>> from jdfd_keras import predict_files
        >>> print(summarize(predict_files(["face.png"], model="saved_models/detector")))
        note: The detector examines faces only...
        face.png: ...
        model: detector, version 1
    """
    return "".join(summary_parts(predictions, page))


def summary_parts(predictions: Predictions, page: str | Path | None = None) -> Iterator[str]:
    """Yield the text of `summarize` in parts, so that a million verdicts need little memory.

    Args:
        predictions: As for `summarize`.
        page: As for `summarize`.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["face.png"], model="saved_models/detector")
        >>> "".join(summary_parts(predictions)) == summarize(predictions)
        True
    """
    by_verdict, unchecked, has_time_line, has_people = Counter(), Counter(), False, False
    for verdict in predictions.files:
        by_verdict[verdict.verdict] += 1
        unchecked.update(count_unchecked([verdict.credentials]))
        has_time_line = has_time_line or _has_time_line(verdict)
        has_people = has_people or verdict.num_people > 1
    return render_parts(
        "verdicts.txt.j2",
        predictions=predictions,
        page=str(page or ""),
        counts=_describe_counts(predictions, by_verdict),
        legend=_describe_legend(predictions, has_people) if has_time_line else "",
        unchecked=unchecked,
        has_time_line=_has_time_line,
        draw_time_line=_draw_time_line,
        describe_reason=describe_reason,
        verdict_text=verdict_text,
    )


def count_unchecked(credentials: Iterable[ContentCredentials | None]) -> dict[str, int]:
    """Return why Content Credentials were not checked, and of how many files.

    Example:
        >>> count_unchecked([ContentCredentials("not_checked", "Of this format."), None])
        {'Of this format.': 1}
    """
    return dict(
        Counter(found.detail for found in credentials if found and found.state == NOT_CHECKED)
    )


def _describe_counts(predictions: Predictions, by_verdict: Mapping[str, int]) -> str:
    """Return the number of files by verdict, such as `3 files: 1 fake, 2 no face`."""
    counts = [f"{by_verdict[name]} {verdict_text(name)}" for name in VERDICTS if by_verdict[name]]
    if predictions.failed:
        counts.append(f"{len(predictions.failed)} without a verdict")
    return f"{plural(len(predictions.paths), 'file')}: {', '.join(counts)}"


def _has_time_line(verdict: Verdict) -> bool:
    return bool(verdict.duration_s and verdict.judged_faces and verdict.num_frames > 1)


def _describe_legend(predictions: Predictions, has_people: bool) -> str:
    """Explain the time lines."""
    blocks, no_face = _choose_blocks()
    thresholds = describe_thresholds(predictions.provenance)
    return (
        f"highest score of each moment, {blocks[0]} is 0 and {blocks[-1]} is 1, {no_face} is no "
        f"judged face; {thresholds}{', for 1 person' if has_people else ''}"
    )


def _choose_blocks() -> tuple[str, str]:
    """Return the characters for scores from 0 to 1, and for no face, that stdout can encode."""
    try:
        (BLOCKS + NO_FACE_BLOCK).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII_BLOCKS, ASCII_NO_FACE_BLOCK
    return BLOCKS, NO_FACE_BLOCK


def _draw_time_line(verdict: Verdict) -> str:
    """Draw the scores of a video over time in one line."""
    blocks, no_face = _choose_blocks()
    line = [no_face] * min(MAX_BLOCKS, verdict.num_frames)
    # The highest score of a moment last, which replaces the others.
    for face in sorted(verdict.judged_faces, key=lambda face: face.score):
        moment = min(int(face.time_s / verdict.duration_s * len(line)), len(line) - 1)
        line[moment] = blocks[min(int(face.score * len(blocks)), len(blocks) - 1)]
    if verdict.duration_s < 10:
        return f"0 s {''.join(line)} {verdict.duration_s:.1f} s"
    minutes, seconds = divmod(round(verdict.duration_s), 60)
    return f"0:00 {''.join(line)} {minutes}:{seconds:02}"
