"""The settings of measuring a detector."""

from dataclasses import dataclass

from jdfd_keras.options.setting import setting


@dataclass(frozen=True)
class EvaluateOptions:
    """How `evaluate` scores and measures; stated in its report."""

    split: str = setting("test", "split to score", choices=("train", "val", "test"))
    threshold: float | None = setting(
        None,
        "a score at or above it is called fake; if not given that of the run's calibration, "
        "else 0.5",
    )
    aggregation: str = setting(
        "mean",
        "how a video's score is made of those of its faces: their mean, median or max, or track, "
        "the highest of the means of its people, much as predict judges",
        choices=("mean", "median", "max", "track"),
    )
    rounds: int = setting(
        1000, "rounds of the bootstrap behind the intervals, 100 or more; 0: no intervals"
    )
    seed: int = setting(0, "seed of the bootstrap")
    batch_size: int = setting(32, "faces scored at once")
    reconstruction: bool = setting(False, "run the decoder too, and measure its error")
    allow_leak: bool = setting(
        False, "evaluate although training saw sources or near-duplicates; the report says so"
    )


@dataclass(frozen=True)
class CalibrateOptions:
    """What `calibrate` is to reach on validation videos; kept in the run folder."""

    fpr: float = setting(
        0.05,
        "largest share of real videos called fake; the same of fakes called real, beyond which "
        "the verdict is `uncertain`",
    )
    batch_size: int = setting(32, "faces scored at once")
    allow_leak: bool = setting(False, "calibrate although training saw sources or near-duplicates")


EXPERIMENTS = ("cross-dataset", "ablation", "foreign-data", "statistics")


@dataclass(frozen=True)
class ExperimentOptions:
    """How often `experiment` does what it does."""

    seeds: tuple[int, ...] = setting(
        (0,), "seeds of the trainings; of several, tables give mean and standard deviation"
    )
