"""A trained detector and a prepared data set to a report.

Takes a run folder or a .keras file and the folder of the data; writes scores.csv, report.json,
report.md, faces.png and roc.png. How faces become scores, and scores numbers and pages, is left to
the modules beside it.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

import jdfd_keras
from jdfd_keras.claims import OPTIONS, load_options
from jdfd_keras.data.leaks import COLUMNS, describe_leaks, find_leaks, refuse_leaks
from jdfd_keras.data.manifest import VideoRow, read_faces, read_videos
from jdfd_keras.data.pipeline import load_faces
from jdfd_keras.data.shards import explain_damage
from jdfd_keras.data.videos import CLASSES, LABEL_NAMES, UNLABELLED
from jdfd_keras.evaluation.figures import plot_faces, plot_roc
from jdfd_keras.evaluation.metrics import check_threshold
from jdfd_keras.evaluation.report import (
    Excluded,
    build_report,
    write_report,
)
from jdfd_keras.evaluation.scores import Scores, write_scores
from jdfd_keras.evaluation.scoring import ScoredFaces, score_dataset
from jdfd_keras.options import (
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    SplitOptions,
)
from jdfd_keras.progress import Progress
from jdfd_keras.training.run import load_run_model, read_seen

ROC = "roc.png"
FACES = "faces.png"
EXAMPLES_PER_CLASS = 6
READ = (*COLUMNS, "frame_index", "track_id", "label", "manipulation")


def evaluate(
    model_path: str | Path,
    data_directory: str | Path,
    out: str | Path,
    options: EvaluateOptions | None = None,
) -> dict:
    """Evaluate a trained detector on one split of a prepared data set.

    Args:
        model_path: Run folder, whose best checkpoint is taken, or a .keras file.
        data_directory: Prepared data set.
        out: Folder for scores.csv, report.json, report.md, faces.png and, where both classes are
            there, roc.png; made if it is not there, files of these names are replaced.
        options: Split, threshold and batch size; whether faces that training saw are taken.

    Returns:
        The report, as in report.json; see `build_report`.

    Raises:
        OSError: If a file is not there, or `out` cannot be made.
        ValueError: If the split is empty, the threshold is not in [0, 1], the split shares sources
            or near-duplicate faces with what the model was trained on and `options.allow_leak` is
            not given, the data does not match its manifest or the model, a shard is damaged, or a
            score is no number.
    """
    options = options or EvaluateOptions()
    check_threshold(options.threshold)
    if options.batch_size < 1:
        raise ValueError(
            f"Expected batch_size >= 1; got {options.batch_size}. Try the default, 32."
        )
    rows = read_faces(data_directory, split=options.split, columns=READ)
    rows = rows.filter(pc.not_equal(rows["label"], UNLABELLED))
    videos = [
        video
        for video in read_videos(data_directory)
        if video.label != UNLABELLED
        # Where faces are split singly, a video without any belongs to no split and to each.
        and (video.split == options.split or (not video.split and not video.num_faces))
    ]
    if not len(rows):
        raise ValueError(
            f"Expected faces in the split {options.split!r} of {data_directory}; got none, and "
            f"{len(videos)} videos without a face. Try another split, or prepare more videos."
        )
    leaks = check_leaks(model_path, data_directory, rows, options)
    model, training_faces = load_run_model(model_path)
    faces = load_options(Path(data_directory) / OPTIONS, "faces", FaceOptions)
    filters = load_options(Path(data_directory) / OPTIONS, "filters", FilterOptions)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    dataset = load_faces(
        data_directory, options.split, batch_size=options.batch_size, labelled_only=True
    )
    shown = choose_examples(rows)
    batches = _read_batches(dataset, data_directory, len(rows))
    scored = score_dataset(model, batches, show=shown)
    scores = join_manifest(rows, scored)
    report = build_report(
        scores,
        threshold=options.threshold,
        protocol=describe_protocol(
            model_path, data_directory, options, faces, training_faces, filters
        )
        | {"leaks": leaks},
        excluded=find_excluded(videos, scores),
        reconstruction=scored.reconstruction,
    )

    write_scores(out / "scores.csv", scores)
    plot_faces(
        out / FACES,
        [scored.pictures[position] for position in shown],
        [
            f"{LABEL_NAMES[rows['label'][position].as_py()]}, score {scored.score[position]:.2f}"
            for position in shown
        ],
    )
    roc = out / ROC
    has_curve = report["frame"]["auc"]["value"] is not None
    if has_curve:
        plot_roc(roc, scores, title=f"{Path(data_directory).resolve().name}, {options.split}")
    else:
        roc.unlink(missing_ok=True)  # of an evaluation before this one
    write_report(out, report, roc=ROC if has_curve else None, faces=FACES)
    return report


def check_leaks(
    model_path: str | Path, data_directory: str | Path, rows: pa.Table, options: EvaluateOptions
) -> str:
    """See that what is evaluated was not trained on.

    Args:
        model_path: What is evaluated.
        data_directory: On what.
        rows: Its faces, with `data.leaks.COLUMNS`.
        options: The split, and whether a leak is taken. The validation split is held against
            training alone; the others also against validation, on which the epoch was chosen.

    Returns:
        A sentence for the report.

    Raises:
        ValueError: If something leaks and that is not allowed.
    """
    seen = read_seen(model_path)
    if seen is None:
        return "not checked: what this model was trained on is not known here"
    if options.split == "val":
        seen = seen.filter(pc.equal(seen["split"].cast(pa.string()), "train"))
    leaks = find_leaks({"training": seen, "evaluation": rows})
    if not options.allow_leak:
        refuse_leaks(
            leaks,
            f"the {options.split} split of {data_directory} and what {model_path} was trained on",
            "Evaluate on other data, or give --allow-leak: the report then says so.",
        )
    return describe_leaks(leaks, checked="training and evaluation")


def choose_examples(rows: pa.Table) -> list[int]:
    """Choose faces to look at: the first face of the first videos of each class.

    Args:
        rows: The faces of a split, with `label` and `video_id`.

    Returns:
        Positions in `rows`: real ones, then fakes, at most EXAMPLES_PER_CLASS of each.
    """
    first = {}
    pairs = zip(rows["label"].to_pylist(), rows["video_id"].to_pylist(), strict=True)
    for position, pair in enumerate(pairs):
        first.setdefault(pair, position)
    return [
        position
        for wanted in CLASSES.values()
        for position in [p for (label, _), p in first.items() if label == wanted][
            :EXAMPLES_PER_CLASS
        ]
    ]


def join_manifest(rows: pa.Table, scored: ScoredFaces) -> Scores:
    """Put names to scores.

    Args:
        rows: The manifest's faces of the split, in its order, with the columns READ.
        scored: What `score_dataset` gave for the same faces.

    Raises:
        ValueError: If their numbers or their labels differ: then the scores would stand beside
            the wrong names; or if the table is not valid.
    """
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
    return Scores(
        video_id=np.array(rows["video_id"].to_pylist()),
        frame_index=rows["frame_index"].to_numpy(),
        label=label,
        manipulation=np.array(rows["manipulation"].to_pylist()),
        score=scored.score,
        track_id=rows["track_id"].to_numpy(),
    )


def find_excluded(videos: list[VideoRow], scores: Scores) -> list[Excluded]:
    """List the videos of a split that have no score, in order, and why.

    Args:
        videos: Every video of the split.
        scores: One row per face of the same split.
    """
    scored = set(scores.video_id.tolist())
    return [
        Excluded(video.video_id, bool(video.label), video.reason or "no face in the manifest")
        for video in videos
        if video.video_id not in scored
    ]


def describe_protocol(
    model_path: str | Path,
    data_directory: str | Path,
    options: EvaluateOptions,
    faces: FaceOptions,
    training_faces: FaceOptions,
    filters: FilterOptions,
) -> dict:
    """State what was done, so that another may do it again.

    Args:
        model_path: What was evaluated.
        data_directory: On what.
        options: How.
        faces: How the evaluated faces were taken.
        training_faces: How those were that the model learned from.
        filters: Which of the evaluated faces were left out.

    Returns:
        A dict ready for JSON.
    """
    is_run = Path(model_path).is_dir()
    return {
        "model": Path(model_path).resolve().name,
        "checkpoint": "best of its run, chosen on validation data and never on test data"
        if is_run
        else "a file given by itself: how it was chosen is not known here",
        "data": Path(data_directory).resolve().name,
        "split": options.split,
        "split_options": dataclasses.asdict(
            load_options(Path(data_directory) / OPTIONS, "split", SplitOptions)
        ),
        "face_options": dataclasses.asdict(faces),
        "training_face_options": dataclasses.asdict(training_faces),
        "filters": dataclasses.asdict(filters),
        "versions": {
            "jdfd_keras": jdfd_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _read_batches(dataset: Iterable, directory: str | Path, num_faces: int) -> Iterator:
    """Pass the batches on and show progress; say what a failure to read them means."""
    progress = Progress("scoring", num_faces, "faces")
    try:
        with explain_damage(directory):
            for image, targets in dataset:
                yield image, targets
                progress.advance(len(image))
    finally:
        progress.close()
