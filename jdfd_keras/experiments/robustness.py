"""The experiment robustness: how far the AUC of a detector falls when its input is degraded.

A cell is one dataset with one degradation at one strength, or as it is: the scores of its faces,
and a done file next to their folder with the digests of its inputs. Finished cells are not run
again; a cell that fails does not stop the others. `reporting` writes the results.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.datasets.synthetic.degradations import DEGRADATIONS, parse_degradations
from jdfd_keras.evaluation.delong import Difference, compare_scores
from jdfd_keras.evaluation.evaluate import check_evaluate_options
from jdfd_keras.evaluation.metrics import Metrics, measure
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.experiments.degraded_cells import NONE, CellRunner, DegradedCell
from jdfd_keras.experiments.sets import ExperimentReport, check_keys
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.io.console import print_message
from jdfd_keras.io.disk_space import is_disk_full
from jdfd_keras.io.results import Result
from jdfd_keras.io.workers import check_limits
from jdfd_keras.options import (
    ROBUSTNESS,
    EngineOptions,
    EvaluateOptions,
    LimitOptions,
    RobustnessOptions,
)
from jdfd_keras.training.headpose_run import check_has_network

TITLE = "Robustness: AUC of degraded videos"
QUICK_TITLE = "Robustness: AUC of degraded face crops"
ALL = "all"  # degradations
_PACKAGES = ("av", "numpy", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class RobustnessRow(Result):
    """One cell: a dataset with one degradation at one strength.

    Attributes:
        data: Key of the dataset.
        degradation: Name of the degradation, or NONE.
        strength: Its strength; 0 of NONE.
        failed: Why the cell has no result; "" if it has one.
        source: Folder of its scores, relative to that of the experiment.
        frame: Metrics of its faces; None if it failed, as all below.
        video: Metrics of its videos.
        difference: Video AUC of the cell and of the data as it is, on the videos that both have
            scored, with DeLong's test; None also where a class is absent, and of NONE.
        num_common: Number of these videos.
        num_videos: Videos of the split, with or without a score.
        num_scored: Videos with a face in the cell; the others are excluded from its metrics.
    """

    data: str
    degradation: str
    strength: float
    failed: str = ""
    source: str = ""
    frame: Metrics | None = None
    video: Metrics | None = None
    difference: Difference | None = None
    num_common: int = 0
    num_videos: int = 0
    num_scored: int = 0


@dataclass(frozen=True)
class RobustnessMean(Result):
    """The mean video AUC over strengths, of one degradation or of all.

    Attributes:
        data: Key of the dataset.
        degradation: Name of the degradation; ALL for the mean over degradations.
        auc: Mean; None if a strength has no AUC, and for ALL if no degradation has a mean.
        num_measured: Number of values that it is the mean of.
        num_requested: Number of values that were requested.
    """

    data: str
    degradation: str
    auc: float | None
    num_measured: int
    num_requested: int


@dataclass(frozen=True)
class RobustnessProtocol(Result):
    """Model, data and settings, so that others can repeat the experiment.

    Attributes:
        model: Name and version of the model.
        model_digest: SHA-256 of its weights.
        engine: Backend, version and precision of the scores.
        demonstration: Whether the model is for demonstration only.
        applied_to: `videos`, whose faces are then extracted again, or `crops`.
        leakage: A sentence on leakage for each dataset.
        descriptions: What each degradation does, by its name.
        units: Unit of the strengths of each degradation.
        options: Degradations and seed.
        evaluate: Split, aggregation and intervals.
    """

    model: str
    model_digest: str
    engine: str
    demonstration: bool
    applied_to: str
    leakage: dict[str, str]
    descriptions: dict[str, str]
    units: dict[str, str]
    options: RobustnessOptions
    evaluate: EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class RobustnessReport(ExperimentReport):
    """The report of `robustness`.

    Attributes:
        protocol: Model, data and settings.
        results: One row for each cell, by dataset, degradation and strength.
        means: Means over strengths.
    """

    protocol: RobustnessProtocol
    results: tuple[RobustnessRow, ...]
    means: tuple[RobustnessMean, ...]


def measure_robustness(
    model: str | Path,
    data: Mapping[str, str | Path],
    out: str | Path,
    options: RobustnessOptions | None = None,
    *,
    videos: Mapping[str, str | Path] | None = None,
    evaluate: EvaluateOptions | None = None,
    engine: EngineOptions | None = None,
    limits: LimitOptions | None = None,
) -> RobustnessReport:
    """Measure a detector on degraded data, or resume that.

    Args:
        model: Exported model, run folder or .keras file.
        data: Key to prepared dataset.
        out: Folder of the experiment; scores are stored in OUT/robustness.
        options: Degradations, and what they are applied to.
        videos: Key to the folder of the videos that the dataset was prepared from; not needed if
            `options.quick`.
        evaluate: Split, split table, aggregation, intervals and allowed leakage.
        engine: Backend and precision of an exported model.
        limits: Limits of the analysis of one degraded video; the defaults if not given.

    Returns:
        The report. Its `failed` has one sentence for each cell without a result.

    Raises:
        OSError: If the model cannot be loaded, or `out` cannot be written.
        ValueError: If an option is out of range, a degradation is unknown, or the model has no
            network.

    Example:
        >>> options = RobustnessOptions("jpeg=30", quick=True)
        >>> report = measure_robustness("saved_models/detector", {"ff": "prepared"}, "robust",
        ...                             options)
        >>> [(row.degradation, row.strength, row.num_scored) for row in report.results]
        [('none', 0.0, 2), ('jpeg', 30.0, 2)]
    """
    options, evaluate = options or RobustnessOptions(), evaluate or EvaluateOptions()
    limits, out = limits or LimitOptions(), Path(out)
    check_evaluate_options(evaluate)
    check_limits(limits)
    pairs = parse_degradations(options.degradations)
    _check(data, videos or {}, options)
    check_has_network(model)
    with contextlib.closing(load_predictor(model, engine)) as predictor:
        runner = CellRunner(out, Path(model), predictor, options, evaluate, limits)
        for key, directory in data.items():
            runner.open_dataset(key, Path(directory), (videos or {}).get(key))
        cells = [DegradedCell(key, *pair) for key in data for pair in ((NONE, 0.0), *pairs)]
        results = _run_cells(runner, cells)
        metadata = predictor.metadata
        protocol = RobustnessProtocol(
            model=f"{metadata.name}, version {metadata.version}",
            model_digest=metadata.digest,
            engine=predictor.engine.describe(),
            demonstration=metadata.demonstration,
            applied_to="crops" if options.quick else "videos",
            leakage=runner.leakage,
            descriptions={name: DEGRADATIONS[name].description for name, _ in pairs},
            units={name: DEGRADATIONS[name].unit for name, _ in pairs},
            options=dataclasses.replace(options, workers=0),  # changes no result
            evaluate=evaluate,
        )
    return RobustnessReport(
        experiment=ROBUSTNESS,
        title=QUICK_TITLE if options.quick else TITLE,
        versions={"jdfd_keras": jdfd_keras.__version__} | _find_versions(),
        datasets=runner.dataset_options,
        failed=_describe_failed(results),
        protocol=protocol,
        results=tuple(results),
        means=average_strengths(results),
    )


def _check(
    data: Mapping[str, str | Path], videos: Mapping[str, str | Path], options: RobustnessOptions
) -> None:
    if options.workers < 0 or options.noise_seed < 0:
        raise ValueError(
            f"Expected workers >= 0 and noise_seed >= 0; got {options.workers} and "
            f"{options.noise_seed}. Try the defaults."
        )
    if not data:
        raise ValueError("Expected a prepared dataset; got none. Give it a key, such as ff.")
    check_keys(data)
    if videos and options.quick:
        raise ValueError(
            "Expected no folders of videos with quick, which degrades face crops; got "
            f"{', '.join(videos)}. Omit one of the two."
        )
    if unknown := [key for key in videos if key not in data]:
        raise ValueError(
            f"Expected videos of the datasets {', '.join(data)}; got {', '.join(unknown)}. Use the "
            "same keys."
        )


def _run_cells(runner: CellRunner, cells: list[DegradedCell]) -> list[RobustnessRow]:
    rows, whole = [], {}
    for number, cell in enumerate(cells, start=1):
        label = f"cell {number} of {len(cells)}: {cell}"
        try:
            scores = runner.read(cell) or runner.run(cell, label)
            row = _measure(runner, cell, scores, whole.get(cell.data))
        except (OSError, ValueError) as error:
            if is_disk_full(error):  # of all cells
                raise
            reason = " ".join(str(error).split())
            num_videos = runner.count_videos(cell.data)
            row = RobustnessRow(**vars(cell), failed=reason, num_videos=num_videos)
        else:
            if cell.degradation == NONE:
                whole[cell.data] = scores
        rows.append(row)
        auc = row.video.auc.value if row.video else None
        outcome = f"failed: {row.failed}" if auc is None else f"video AUC {100 * auc:.1f} %"
        print_message(f"experiment: {label}: {outcome}")
    return rows


def _measure(
    runner: CellRunner, cell: DegradedCell, scores: Scores, whole: Scores | None
) -> RobustnessRow:
    options = runner.evaluate
    label, num_videos = scores.videos.label, runner.count_videos(cell.data)
    source = runner.folder_of(cell).relative_to(runner.out).as_posix()
    facts = vars(cell) | {"source": source, "num_videos": num_videos, "num_scored": len(label)}
    if label.all() or not label.any():
        of = "fake" if label.all() else "real"
        reason = f"faces were found in {of} videos only, which have no AUC"
        return RobustnessRow(**facts, failed=reason)
    settings = {"threshold": 0.5, "n_resamples": options.n_resamples, "seed": options.seed}
    compared = None
    if whole is not None:
        compared = compare_scores(scores, whole, options.aggregation)
    return RobustnessRow(
        **facts,
        frame=measure(scores.label, scores.score, video=scores.video, **settings),
        video=measure(label, score_videos(scores, options.aggregation), **settings),
        difference=compared and compared.video,
        num_common=compared.num_videos if compared else 0,
    )


def average_strengths(rows: list[RobustnessRow]) -> tuple[RobustnessMean, ...]:
    """Compute the mean video AUC over strengths, of each degradation of each dataset and of all.

    The mean over degradations is that of the means of those whose strengths all have an AUC.

    Example:
        >>> average_strengths([RobustnessRow(data="ff", degradation="jpeg", strength=9.0)])[0].auc
    """
    aucs: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        if row.degradation != NONE:
            auc = row.video.auc.value if row.video else None
            aucs.setdefault(row.data, {}).setdefault(row.degradation, []).append(auc)
    means = []
    for data, by_name in aucs.items():
        own = []
        for name, values in by_name.items():
            known = [value for value in values if value is not None]
            mean = float(np.mean(known)) if len(known) == len(values) else None
            own.append(RobustnessMean(data, name, mean, len(known), len(values)))
        known = [one.auc for one in own if one.auc is not None]
        mean = float(np.mean(known)) if known else None
        means += [*own, RobustnessMean(data, ALL, mean, len(known), len(own))]
    return tuple(means)


def _describe_failed(rows: list[RobustnessRow]) -> tuple[str, ...]:
    """Return one sentence for the cells of a dataset that have the same reason."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.failed:
            name = row.degradation if row.degradation == NONE else _name(row)
            cells.setdefault((row.data, row.failed), []).append(name)
    return tuple(f"{data}: {', '.join(names)}: {reason}" for (data, reason), names in cells.items())


def _name(row: RobustnessRow) -> str:
    return f"{row.degradation}={row.strength:g}"


def _find_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):  # such as OpenCV under another name
            found[package] = version(package)
    return found
