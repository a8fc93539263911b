"""The settings of every stage: the only home of defaults and of their help.

Frozen dataclasses, flat and JSON-ready. The command line makes its flags from them, stages
take them as arguments, and they are written beside whatever they made. Imports nothing
heavy, so `jdfd-keras --help` answers at once.
"""

from jdfd_keras.options.data_options import (
    LAYOUTS,
    AugmentOptions,
    DemoOptions,
    FaceOptions,
    FilterOptions,
    PipelineOptions,
    PrepareOptions,
    SplitOptions,
    WorkOptions,
)
from jdfd_keras.options.inference_options import (
    ENGINES,
    EXPERIMENTS,
    CalibrateOptions,
    EvaluateOptions,
    ExperimentOptions,
    PredictOptions,
    PredictWorkOptions,
    ServeOptions,
)
from jdfd_keras.options.training_options import (
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PlaceOptions,
    RunOptions,
    TrainOptions,
    UnlabelledOptions,
)

__all__ = [
    "AugmentOptions",
    "CalibrateOptions",
    "DemoOptions",
    "ENGINES",
    "EXPERIMENTS",
    "EvaluateOptions",
    "ExperimentOptions",
    "FaceOptions",
    "FilterOptions",
    "LAYOUTS",
    "LossOptions",
    "ModelOptions",
    "OptimizerOptions",
    "PipelineOptions",
    "PlaceOptions",
    "PredictOptions",
    "PredictWorkOptions",
    "PrepareOptions",
    "RunOptions",
    "ServeOptions",
    "SplitOptions",
    "TrainOptions",
    "UnlabelledOptions",
    "WorkOptions",
]
