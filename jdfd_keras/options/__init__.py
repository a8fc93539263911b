"""Options of every stage: the only home of defaults and of their help.

Frozen dataclasses, flat and JSON-ready. The command line makes its flags from them, stages take
them as arguments, and they are stored with every result. Imports nothing heavy.
"""

from jdfd_keras.options.data_options import (
    LAYOUTS,
    AugmentOptions,
    DemoOptions,
    FaceOptions,
    FilterOptions,
    PipelineOptions,
    PrepareOptions,
    PrepareRuntime,
    SplitOptions,
)
from jdfd_keras.options.detector_options import (
    ENGINES,
    EXPERIMENTS,
    CalibrateOptions,
    DataLocation,
    EvaluateOptions,
    ExperimentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PredictOptions,
    PredictRuntime,
    ServeOptions,
    TrainOptions,
    TrainRuntime,
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
    "DataLocation",
    "PredictOptions",
    "PredictRuntime",
    "PrepareOptions",
    "TrainRuntime",
    "ServeOptions",
    "SplitOptions",
    "TrainOptions",
    "UnlabelledOptions",
    "PrepareRuntime",
]
