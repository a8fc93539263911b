"""Options of experiments."""

from dataclasses import dataclass

from jdfd_keras.options.data_options import setting

SPLIT_EXPERIMENTS = ("leave-one-out", "cross-compression")  # that train with their own splits
# Those that train, or count.
EXPERIMENTS = ("cross-dataset", "ablation", "foreign-data", *SPLIT_EXPERIMENTS, "statistics")
ROBUSTNESS = "robustness"  # the experiment that scores degraded data with a trained model


@dataclass(frozen=True)
class ExperimentOptions:
    """Repetitions and methods; stored in the report of the experiment."""

    seeds: tuple[int, ...] = setting(
        (0,),
        "seeds of the trainings; with several, tables show mean and standard deviation",
        common=True,
    )
    methods: str = setting(
        "jdfd",
        "cross-dataset: methods of Table 2 to train, such as xception,capsule,jdfd, or all; those "
        "other than jdfd have the settings of their sources, with the epochs of the experiment",
        common=True,
    )


@dataclass(frozen=True)
class RobustnessOptions:
    """Degradations of the experiment robustness; stored in its report."""

    degradations: str = setting(
        "all",
        "degradations, such as jpeg,blur for all of their strengths, or jpeg=30,h264=40",
        common=True,
    )
    quick: bool = setting(
        False,
        "degrade the prepared face crops instead of the videos, which takes much less time",
        common=True,
    )
    noise_seed: int = setting(0, "random seed of the noise and of the dropped frames")
    workers: int = setting(
        0, "processes that degrade videos and extract faces; 0: one per core, at most one per video"
    )
