"""Scores parted by what is known of their videos, and every part measured.

Takes scores and the videos without one; gives the numbers of each data set, split, compression and
manipulation. Knows nothing of files, models or TensorFlow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jdfd_keras.evaluation.metrics import MEASURED, Metrics, measure
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.progress import Progress


@dataclass(frozen=True)
class Excluded:
    """A video without a score, what is known of it, and why it has none."""

    data: str
    video_id: str
    is_fake: bool
    reason: str
    split: str = ""
    compression: str = ""
    manipulation: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the scores, the videos that lack one, and under `by_...` smaller groups of these."""

    scores: Scores
    excluded: Sequence[Excluded]
    parts: dict[str, dict[str, "Group"]]


def part_all(scores: Scores, excluded: Sequence[Excluded], names: Sequence[str] = GROUPS) -> Group:
    """Part scores by all that is known of their videos.

    Args:
        scores: One row per face.
        excluded: Videos without a score.
        names: By what, of GROUPS; manipulation is the last.

    Returns:
        The whole. Its parts are by manipulation, each with all the reals; and, where there are
        several, by the others, each parted by what follows in `names`. Values are sorted; `""`
        is that of videos of which it is not known.
    """
    parts = {}
    for position, name in enumerate(names, start=1):
        found = _part(scores, excluded, name)
        if name == "manipulation" or len(found) > 1:
            parts[f"by_{name}"] = {
                value: part_all(*part, names[position:]) for value, part in found.items()
            }
    return Group(scores, excluded, parts)


def _part(scores: Scores, excluded: Sequence[Excluded], name: str) -> dict[str, tuple]:
    column, label = getattr(scores.videos, name), scores.videos.label
    is_manipulation = name == "manipulation"
    values = set((column[label] if is_manipulation else column).tolist())
    # Those of which no video has a score are a group too: of nothing but what is lacking.
    values |= {getattr(v, name) for v in excluded if v.is_fake or not is_manipulation}
    found = {}
    for value in sorted(values):
        kept = (column == value) | (~label & is_manipulation)
        lacking = [
            video
            for video in excluded
            if getattr(video, name) == value or (is_manipulation and not video.is_fake)
        ]
        found[value] = scores.select(kept), lacking
    return found


def measure_groups(whole: Group, threshold: float, options: EvaluateOptions) -> dict:
    """Measure faces and videos of a group and of all its parts.

    Args:
        whole: What `part_all` gave.
        threshold: A score at or above it is called fake.
        options: How a video's score is made, rounds and seed of the bootstrap.

    Returns:
        `frame`, `video`, `coverage`, and the parts as dicts of the same kind; ready for JSON.
    """
    settings = {"threshold": threshold, "rounds": options.rounds, "seed": options.seed}
    distinct = {id(group.scores): group.scores for group in _walk(whole)}
    measured = {}  # one manipulation alone is the whole
    progress = Progress("measuring", len(distinct), "groups")
    try:
        for key, scores in distinct.items():
            videos = score_videos(scores, options.aggregation) if len(scores) else scores.score
            frame = measure(scores.label, scores.score, video=scores.video, **settings)
            video = measure(scores.videos.label, videos, **settings)
            measured[key] = {"frame": _block(frame), "video": _block(video)}
            progress.advance()
    finally:
        progress.close()

    def collect(group: Group) -> dict:
        parts = {
            name: {value: collect(part) for value, part in of.items()}
            for name, of in group.parts.items()
        }
        return measured[id(group.scores)] | {"coverage": _cover(group)} | parts

    return collect(whole)


def _walk(group: Group) -> Iterator[Group]:
    yield group
    for parts in group.parts.values():
        for part in parts.values():
            yield from _walk(part)


def _block(metrics: Metrics) -> dict:
    values = {name: getattr(metrics, name)._asdict() for name in MEASURED}
    return {"num_real": metrics.num_real, "num_fake": metrics.num_fake, **values}


def _cover(group: Group) -> dict:
    num_scored = len(group.scores.videos)
    num_videos = num_scored + len(group.excluded)
    return {
        "num_faces": len(group.scores),
        "num_scored": num_scored,
        "num_videos": num_videos,
        "share": num_scored / num_videos,
    }
