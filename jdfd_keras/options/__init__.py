"""Options of every stage: the only home of defaults and of their help.

Frozen dataclasses, flat and JSON-ready. The command line makes its flags from them, stages take
them as arguments, and they are stored with every result. Imports nothing heavy.
"""

from jdfd_keras.options.credential_options import CredentialOptions as CredentialOptions
from jdfd_keras.options.data_options import FAKE_KINDS as FAKE_KINDS
from jdfd_keras.options.data_options import LAYOUTS as LAYOUTS
from jdfd_keras.options.data_options import WARPED as WARPED
from jdfd_keras.options.data_options import AugmentOptions as AugmentOptions
from jdfd_keras.options.data_options import DemoOptions as DemoOptions
from jdfd_keras.options.data_options import FaceOptions as FaceOptions
from jdfd_keras.options.data_options import FilterOptions as FilterOptions
from jdfd_keras.options.data_options import LimitOptions as LimitOptions
from jdfd_keras.options.data_options import PipelineOptions as PipelineOptions
from jdfd_keras.options.data_options import PrepareOptions as PrepareOptions
from jdfd_keras.options.data_options import PrepareRuntime as PrepareRuntime
from jdfd_keras.options.data_options import SplitOptions as SplitOptions
from jdfd_keras.options.data_options import default_faces as default_faces
from jdfd_keras.options.data_options import parse_fakes as parse_fakes
from jdfd_keras.options.detector_options import BACKENDS as BACKENDS
from jdfd_keras.options.detector_options import METHODS as METHODS
from jdfd_keras.options.detector_options import PRECISIONS as PRECISIONS
from jdfd_keras.options.detector_options import CalibrateOptions as CalibrateOptions
from jdfd_keras.options.detector_options import DataLocation as DataLocation
from jdfd_keras.options.detector_options import EngineOptions as EngineOptions
from jdfd_keras.options.detector_options import EvaluateOptions as EvaluateOptions
from jdfd_keras.options.detector_options import LossOptions as LossOptions
from jdfd_keras.options.detector_options import ModelOptions as ModelOptions
from jdfd_keras.options.detector_options import OptimizerOptions as OptimizerOptions
from jdfd_keras.options.detector_options import PredictOptions as PredictOptions
from jdfd_keras.options.detector_options import PredictRuntime as PredictRuntime
from jdfd_keras.options.detector_options import TrainOptions as TrainOptions
from jdfd_keras.options.detector_options import TrainRuntime as TrainRuntime
from jdfd_keras.options.detector_options import UnlabelledOptions as UnlabelledOptions
from jdfd_keras.options.experiment_options import EXPERIMENTS as EXPERIMENTS
from jdfd_keras.options.experiment_options import ROBUSTNESS as ROBUSTNESS
from jdfd_keras.options.experiment_options import SPLIT_EXPERIMENTS as SPLIT_EXPERIMENTS
from jdfd_keras.options.experiment_options import ExperimentOptions as ExperimentOptions
from jdfd_keras.options.experiment_options import RobustnessOptions as RobustnessOptions
from jdfd_keras.options.method_settings import METHOD_SETTINGS as METHOD_SETTINGS
from jdfd_keras.options.method_settings import TRAINING_GROUPS as TRAINING_GROUPS
from jdfd_keras.options.method_settings import list_unused as list_unused
from jdfd_keras.options.method_settings import name_flags as name_flags
from jdfd_keras.options.method_settings import resolve_settings as resolve_settings
from jdfd_keras.options.recipes import RECIPES as RECIPES
from jdfd_keras.options.recipes import list_changes as list_changes
from jdfd_keras.options.service_options import ENGINES as ENGINES
from jdfd_keras.options.service_options import SERVICE_LIMITS as SERVICE_LIMITS
from jdfd_keras.options.service_options import FileServiceOptions as FileServiceOptions
from jdfd_keras.options.service_options import ServeOptions as ServeOptions
