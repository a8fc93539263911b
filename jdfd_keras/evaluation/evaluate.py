"""A trained detector and prepared data sets to a report.

Takes a run folder or a .keras file and the folders of the data; writes a folder with scores,
tables and pictures. How faces become scores, scores numbers, and numbers pages, is left to the
modules beside it.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

import jdfd_keras
from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.transforms import explain_damage
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    TestSet,
    check_leaks,
    describe_data,
    find_excluded,
    gather,
)
from jdfd_keras.evaluation.report import (
    UNKNOWN,
    build_report,
    check_options,
    choose_errors,
    choose_threshold,
)
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.inference.backends import ScoredFaces, score_dataset
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.inference.model_files import load_calibration
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import OPTIONS
from jdfd_keras.options import EvaluateOptions, FaceOptions
from jdfd_keras.reporting.evaluation_folder import (
    ERRORS,
    FACES,
    check_folder,
    clear_folder,
    write_folder,
)
from jdfd_keras.reporting.face_grids import plot_explanations, plot_faces
from jdfd_keras.training.run_folder import digest_model, load_run_model

SHOWN_PER_CLASS = 6
# What a run folder was told that a reader of figures asks for.
TRAINING = ("data", "split", "train", "unlabelled", "augment")


def evaluate(
    model_path: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    options: EvaluateOptions | None = None,
    *,
    compare: str | Path | None = None,
) -> dict:
    """Evaluate a trained detector on one split of prepared data sets.

    Args:
        model_path: Run folder, whose best checkpoint is taken, or a .keras file.
        data: Prepared data set, or several.
        out: Folder for scores.parquet, report.json, report.md, report.html and the pictures; made
            if it is not there, files of these names are replaced.
        options: Split, threshold, how a video is scored, intervals; whether reconstructions are
            measured and faces that training saw are taken.
        compare: Scores of another detector, as `read_scores` takes them, to test against.

    Returns:
        The report, as in report.json; see `build_report`.

    Raises:
        OSError: If a file is not there, or `out` cannot be made.
        ValueError: If the split is empty, an option is out of range, the split shares sources or
            near-duplicate faces with what the model was trained on and `options.allow_leak` is
            not given, the data does not match its manifest or the model, a shard is damaged, a
            score is no number, or the other scores are of other videos.
    """
    options = options or EvaluateOptions()
    check_options(options)
    directories = [data] if isinstance(data, (str, Path)) else list(data)
    sets = gather(directories, options.split)
    leaks = check_leaks(model_path, sets, options.split, allow_leak=options.allow_leak)
    out = Path(out)
    check_folder(out, compare)
    other = None if compare is None else read_scores(compare)
    _rehearse(sets, other, options)
    calibration = load_calibration(model_path)
    model, faces = load_run_model(model_path)
    protocol = describe_model(model_path, faces, calibration) | describe_data(sets, options)
    out.mkdir(parents=True, exist_ok=True)

    scored = score_sets(model, sets, options.split, options.batch_size, options.reconstruction)
    scores = join_manifest(sets, scored, calibration)
    report = build_report(
        scores,
        threshold=choose_threshold(options, calibration),
        options=options,
        protocol=protocol | {"leaks": leaks},
        excluded=find_excluded(sets, scores),
        mean_face_mse=scored.mean_face_mse,
    )
    if other is not None:
        report["comparison"] = {"with": Path(compare).name} | compare_scores(
            scores, other, options.aggregation
        )
    clear_folder(out)
    _draw_faces(out, model, sets, scores)
    write_folder(out, scores, report)
    return report


def _rehearse(sets: list[TestSet], other: Scores | None, options: EvaluateOptions) -> None:
    """Find what would be refused when all is scored, before hours are spent on it."""
    label = np.concatenate([one.rows["label"].to_numpy() for one in sets])
    scores = join_manifest(sets, ScoredFaces(np.zeros(len(label)), label))
    if other is not None:
        compare_scores(scores, other, options.aggregation)


def score_sets(
    model: keras.Model, sets: list[TestSet], split: str, batch_size: int, reconstruct: bool
) -> ScoredFaces:
    """Score the faces of prepared data sets, one after the other, in the order of their rows.

    Raises:
        ValueError: As `score_dataset`, or if a shard is damaged.
    """
    progress = Progress("scoring", sum(len(one.rows) for one in sets), "faces")

    def read(one: TestSet) -> Iterator:
        dataset = load_faces(one.directory, split, batch_size=batch_size, labelled_only=True)
        with explain_damage(one.directory):
            for image, targets in dataset:
                yield image, targets
                progress.advance(len(image))

    try:
        return score_dataset(model, chain.from_iterable(map(read, sets)), reconstruct=reconstruct)
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        half = batch_size // 2
        advice = f"Try --batch-size {half}" if half else "Try a machine with more memory"
        raise ValueError(
            f"Expected memory to score {batch_size} faces at once; got {type(error).__name__}. "
            f"{advice}."
        ) from error
    finally:
        progress.close()


def join_manifest(
    sets: Sequence[TestSet], scored: ScoredFaces, calibration: Calibration | None = None
) -> Scores:
    """Put names to scores.

    Args:
        sets: What was scored.
        scored: What `score_dataset` gave for the same faces, in the same order.
        calibration: How scores are corrected; not at all if not given.

    Raises:
        ValueError: If their numbers or their labels differ: then the scores would stand beside
            the wrong names; or if the table is not valid.
    """
    rows = pa.concat_tables([one.rows for one in sets])
    if len(scored.score) != len(rows):
        raise ValueError(
            f"Expected one score for each of the {len(rows)} faces in the manifest; the shards "
            f"gave {len(scored.score)}. The data set is damaged or half written: prepare it "
            "again."
        )
    label = rows["label"].to_numpy()
    differs = label != scored.label
    if differs.any():
        first = int(np.argmax(differs))
        row = rows.slice(first, 1).to_pylist()[0]
        raise ValueError(
            f"Expected the shards to hold the faces in the manifest's order; frame "
            f"{row['frame_index']} of {row['video_id']!r} is {label[first]} in the "
            f"manifest and {scored.label[first]:g} in the shards. Prepare the data set again."
        )
    data = pa.concat_arrays([pa.array([one.name]).take([0] * len(one.rows)) for one in sets])
    return Scores.from_faces(
        video_id=rows["video_id"],
        label=label,
        score=scored.score if calibration is None else calibration.apply(scored.score),
        frame_index=rows["frame_index"].to_numpy(),
        track_id=rows["track_id"].to_numpy(),
        reconstruction_error=scored.error,
        data=data,
        **{name: rows[name] for name in ("split", "compression", "manipulation")},
    )


def describe_model(
    model_path: str | Path, faces: FaceOptions, calibration: Calibration | None
) -> dict:
    """State what was evaluated and how it was made; ready for JSON."""
    path = Path(model_path)
    options = (path if path.is_dir() else path.parent) / OPTIONS
    told = json.loads(options.read_text(encoding="utf-8")) if options.is_file() else {}
    training = {name: told[name] for name in TRAINING if name in told}
    return {
        "model": path.resolve().name,
        "model_digest": digest_model(path),
        "checkpoint": "best of its run, chosen on validation data and never on test data"
        if path.is_dir()
        else "a file given by itself: how it was chosen is not known here",
        "training": training or UNKNOWN,
        "training_faces": dataclasses.asdict(faces),
        "calibration": None if calibration is None else dataclasses.asdict(calibration),
        "coverage": "of all videos of the split, by the manifest",
        "versions": {
            "jdfd_keras": jdfd_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def choose_examples(scores: Scores) -> list[int]:
    """Choose faces to look at: the first face of the first videos of each class.

    Args:
        scores: One row per face.

    Returns:
        Positions of faces: real ones, then fakes, at most SHOWN_PER_CLASS of each.
    """
    first = np.unique(scores.video, return_index=True)[1]
    return [
        int(first[video])
        for wanted in CLASSES.values()
        for video in np.flatnonzero(scores.videos.label == wanted)[:SHOWN_PER_CLASS]
    ]


def _draw_faces(out: Path, model: keras.Model, sets: list[TestSet], scores: Scores) -> None:
    """Draw some faces with their reconstructions, and the hardest errors with their maps."""
    examples, errors = choose_examples(scores), choose_errors(scores)
    chosen = [*examples, *errors]
    crops = np.stack(_read_crops(sets, chosen))
    explained = explain_faces(model, crops)
    captions = [
        f"{LABEL_NAMES[int(scores.label[face])]}, score {scores.score[face]:.2f}" for face in chosen
    ]
    for place in range(len(errors)):  # numbered as on the page
        captions[len(examples) + place] = f"{place + 1}: {captions[len(examples) + place]}"
    first, last = slice(len(examples)), slice(len(examples), None)
    plot_faces(
        out / FACES,
        crops[first],
        captions[first],
        reconstructions=None
        if explained.reconstruction is None
        else explained.reconstruction[first],
    )
    plot_explanations(
        out / ERRORS,
        crops[last],
        captions[last],
        activation=explained.activation[last],
        residual=None if explained.residual is None else explained.residual[last],
    )


def _read_crops(sets: list[TestSet], chosen: list[int]) -> list[np.ndarray]:
    starts = np.cumsum([0, *(len(one.rows) for one in sets)])
    crops = []
    for face in chosen:
        place = int(np.searchsorted(starts, face, side="right")) - 1
        one, row = sets[place], int(face - starts[place])
        shard, offset = (one.rows[name][row].as_py() for name in ("shard", "offset"))
        crops.append(read_crops(one.directory, [shard], [offset], [0])[0])
    return crops
