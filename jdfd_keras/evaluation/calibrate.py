"""Scores that mean what they say, and where a verdict begins.

Takes labelled scores of validation; gives a temperature, a threshold for a wanted false positive
rate, and the band in which the honest answer is "uncertain". Knows how that is kept in a run
folder; knows nothing of models or TensorFlow.

Reference:
    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks" (2017), temperature
    scaling and expected calibration error.

A run and validation data to a calibration, kept in the run.

Takes a run folder and prepared data sets; writes calibration.json, which `evaluate`, `predict` and
`export` read, and beside it the scores it was found on and a picture. Test data is not touched.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from jdfd_keras.client.metadata import (
    CALIBRATION,
    Calibration,
    save_calibration,
)
from jdfd_keras.datasets.leakage import COLUMNS
from jdfd_keras.evaluation.eval_data import SEEN, check_leaks, gather
from jdfd_keras.evaluation.evaluate import join_manifest, score_sets
from jdfd_keras.evaluation.reliability import (
    TEMPERATURES,
    fit_calibration,
    measure_reliability,
    weigh_by_video,
)
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.evaluation.scores_file import write_scores
from jdfd_keras.options import CalibrateOptions
from jdfd_keras.reporting.charts import plot_histograms, plot_reliability
from jdfd_keras.training.run_folder import digest_model, load_run_model, write_seen

FOLDER = "calibration"  # pictures and scores, beside calibration.json
SPLIT = "val"


def calibrate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    options: CalibrateOptions | None = None,
) -> dict:
    """Calibrate the best model of a run on the validation split of prepared data sets.

    Args:
        run: The run folder. Its calibration.json is replaced, and in its folder `calibration`
            scores.parquet (not calibrated), reliability and scores as PNG and SVG.
        data: Prepared data set, or several; what the run was trained on has its own validation.
        options: The wanted false positive rate; whether a leak is taken.

    Returns:
        The fields of the Calibration; `before` and `after` with the expected calibration error of
        faces and of videos; `validation`, how many real and fake videos are called real,
        uncertain and fake, by label; `leaks`, a sentence. Ready for JSON.

    Raises:
        OSError: If a folder is not what it should be.
        ValueError: If validation is empty, lacks a class or leaks from training; if the rate is
            out of range or cannot be reached.
    """
    run = Path(run)
    if not run.is_dir():
        raise NotADirectoryError(
            f"Expected a run folder, in which a calibration is kept; got {run}. Make one with "
            "`jdfd-keras train`."
        )
    options = options or CalibrateOptions()
    sets = gather([data] if isinstance(data, (str, Path)) else data, SPLIT)
    leaks = check_leaks(run, sets, SPLIT, allow_leak=options.allow_leak)
    model, _ = load_run_model(run)
    scored = score_sets(model, sets, SPLIT, options.batch_size, reconstruct=False)
    scores = join_manifest(sets, scored)
    calibration = fit_calibration(
        scores,
        options.fpr,
        data=", ".join(one.name for one in sets),
        model=digest_model(run),
    )
    corrected = dataclasses.replace(scores, score=calibration.apply(scores.score))
    result = _describe(scores, corrected, calibration) | {"leaks": leaks}

    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    rows = pa.concat_tables([one.rows.select([*COLUMNS, "split"]) for one in sets])
    write_seen(run, rows, SEEN)
    write_scores(folder / "scores.parquet", scores)
    _draw(folder, scores, corrected, calibration)
    save_calibration(run / CALIBRATION, calibration)
    return result


def summarize(result: dict) -> str:
    """Say in a few lines, for a terminal, what `calibrate` found."""
    before, after = result["before"], result["after"]
    lines = [
        f"validation: {result['num_real']} real and {result['num_fake']} fake videos of "
        f"{result['data']}",
        f"temperature {result['temperature']:.3g}: calibration error of faces "
        f"{before['frame_ece']:.3f} -> {after['frame_ece']:.3f}, of videos "
        f"{before['video_ece']:.3f} -> {after['video_ece']:.3f}",
        f"threshold {result['threshold']:.3g} for a false positive rate of "
        f"{result['wanted_rate']:g} at most",
        f"uncertain from {result['uncertain_from']:.3g} to {result['uncertain_to']:.3g}; "
        + ", ".join(
            f"{name} videos: {', '.join(f'{count} {verdict}' for verdict, count in of.items())}"
            for name, of in result["validation"].items()
        ),
    ]
    if result["wanted_rate"] * min(result["num_real"], result["num_fake"]) < 1:
        lines.append(
            f"note: a rate of {result['wanted_rate']:g} is less than one video of the smaller "
            "class, so that the most extreme one decides; with more validation videos it is surer"
        )
    if result["temperature"] > 0.99 * TEMPERATURES[1]:
        lines.append(
            "note: these scores tell next to nothing of what is fake: no temperature is high "
            "enough. Train longer, or look at the training data"
        )
    if after["frame_ece"] > before["frame_ece"] and result["temperature"] > 1:
        lines.append(
            "note: on these videos the scores as they came err less, but so few cannot show that "
            "they are as sure as they say: the temperature makes them more careful"
        )
    return "\n".join(lines)


def _describe(scores: Scores, corrected: Scores, calibration: Calibration) -> dict:
    label = scores.videos.label

    def errors(of: Scores) -> dict:
        video = measure_reliability(label, score_videos(of, "track"))
        frame = measure_reliability(of.label, of.score, weigh_by_video(of))
        return {"frame_ece": frame.ece, "video_ece": video.ece}

    counts = {name: dict.fromkeys(("real", "uncertain", "fake"), 0) for name in ("real", "fake")}
    for is_fake, score in zip(label, score_videos(corrected, "track"), strict=True):
        counts["fake" if is_fake else "real"][calibration.judge(score)] += 1
    return {
        **dataclasses.asdict(calibration),
        "before": errors(scores),
        "after": errors(corrected),
        "validation": counts,
    }


def _draw(folder: Path, scores: Scores, corrected: Scores, calibration: Calibration) -> None:
    plot_reliability(
        folder / "reliability",
        {
            name: measure_reliability(of.label, of.score, weigh_by_video(of))
            for name, of in (("before", scores), ("after", corrected))
        },
        title=f"Faces of validation, {calibration.data}",
    )
    plot_histograms(
        folder / "scores",
        scores.videos.label,
        score_videos(corrected, "track"),
        title=f"Calibrated scores of validation videos, {calibration.data}",
        threshold=calibration.threshold,
        uncertain=(calibration.uncertain_from, calibration.uncertain_to),
    )
