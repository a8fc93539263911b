"""One cell of an experiment: done once, kept, and told from one that was made otherwise.

Takes a run, the data set it is tested on and a place; gives its figures. A cell is its folder, as
`evaluate` writes it, and a file beside it, written when all of it is there.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.evaluation.folder import REPORT, SCORES
from jdfd_keras.training.run import digest_model


@dataclass(frozen=True)
class Result:
    """What one cell gave with one seed; AUCs in per cent.

    Attributes:
        seed: Of the training.
        frame_auc_percent: Over faces.
        frame_interval_percent: Its interval, as the report gives one.
        video_auc_percent: Over videos.
        video_interval_percent: Its interval.
        run: The run folder.
        report: The folder of the evaluation.
    """

    seed: int
    frame_auc_percent: float
    frame_interval_percent: tuple[float, float] | None
    video_auc_percent: float
    video_interval_percent: tuple[float, float] | None
    run: str
    report: str


@dataclass(frozen=True)
class Place:
    """Where a cell lies, and what it is made of.

    Attributes:
        directory: Of its evaluation.
        run: Of its training.
        seed: Of its training.
        digests: Data set to the digest of its manifest, of all that the cell depends on.
    """

    directory: Path
    run: Path
    seed: int
    digests: dict[str, str]

    @property
    def mark(self) -> Path:
        """Name the file that says that the cell is whole."""
        return self.directory.with_name(f"{self.directory.name}.json")


def read_cell(place: Place) -> Result | None:
    """Read a cell that is whole.

    Returns:
        Its figures; None if it is not there, was cut short, or was made of another run or of data
        sets that were prepared again since.
    """
    # Whatever is wrong with it, it is made again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        mark = json.loads(place.mark.read_text(encoding="utf-8"))
        report = json.loads((place.directory / REPORT).read_text(encoding="utf-8"))
        if mark == _describe(place):
            return _to_result(place, report)
    return None


def make_cell(place: Place, data: Path, options) -> Result:
    """Evaluate a run on a data set and keep what came out.

    Args:
        place: Where to.
        data: The data set.
        options: The EvaluateOptions.

    Raises:
        OSError: If a file is not there or cannot be written.
        ValueError: If `evaluate` refuses, or the data set has one class alone.
    """
    from jdfd_keras.evaluation.evaluate import evaluate

    place.directory.parent.mkdir(parents=True, exist_ok=True)
    result = _to_result(place, evaluate(place.run, data, place.directory, options))
    unfinished = place.mark.with_name(f"unfinished-{place.mark.name}")
    unfinished.write_text(json.dumps(_describe(place), indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, place.mark)
    return result


def read_cell_scores(directory: Path):
    """Read the scores of the folder of a cell, which a curve is drawn of.

    Raises:
        OSError: If the evaluation left none.
        ValueError: If they are damaged.
    """
    from jdfd_keras.evaluation.score_files import read_scores

    return read_scores(directory / SCORES)


def _describe(place: Place) -> dict:
    return {"model": digest_model(place.run), "data": place.digests}


def _to_result(place: Place, report: dict) -> Result:
    figures = {}
    for level in ("frame", "video"):
        auc = report[level]["auc"]
        if auc["value"] is None:
            raise ValueError(
                "Expected real and fake faces to test on; got one class alone, so that there is "
                "no AUC. Add videos of the other and prepare the data set again."
            )
        low, high = auc.get("low"), auc.get("high")
        figures[f"{level}_auc_percent"] = 100 * auc["value"]
        figures[f"{level}_interval_percent"] = (
            None if low is None or high is None else (100 * low, 100 * high)
        )
    return Result(seed=place.seed, run=str(place.run), report=str(place.directory), **figures)
