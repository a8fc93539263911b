"""Joint DeepFake Detector: a Keras 3 detector of manipulated faces in videos.

The names below are the public interface for Python; each is imported when it is first used,
so that `import jdfd_keras` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "FaceOptions": "jdfd_keras.options",
    "FilterOptions": "jdfd_keras.options",
    "PrepareOptions": "jdfd_keras.options",
    "SplitOptions": "jdfd_keras.options",
    "WorkOptions": "jdfd_keras.options",
    "PipelineOptions": "jdfd_keras.options",
    "AugmentOptions": "jdfd_keras.options",
    "ModelOptions": "jdfd_keras.options",
    "LossOptions": "jdfd_keras.options",
    "OptimizerOptions": "jdfd_keras.options",
    "RunOptions": "jdfd_keras.options",
    "TrainOptions": "jdfd_keras.options",
    "UnlabelledOptions": "jdfd_keras.options",
    "EvaluateOptions": "jdfd_keras.options",
    "CalibrateOptions": "jdfd_keras.options",
    "ExperimentOptions": "jdfd_keras.options",
    "ServeOptions": "jdfd_keras.options",
    "PredictOptions": "jdfd_keras.options",
    "PredictWorkOptions": "jdfd_keras.options",
    "load_options": "jdfd_keras.io.files",
    "extract_faces": "jdfd_keras.faces.extract",
    "Extraction": "jdfd_keras.faces.extract",
    "Face": "jdfd_keras.faces.extract",
    "Track": "jdfd_keras.faces.extract",
    "prepare": "jdfd_keras.datasets.prepare",
    "audit": "jdfd_keras.datasets.audit",
    "load_faces": "jdfd_keras.datasets.pipeline",
    "swap_face": "jdfd_keras.datasets.synthetic.blending",
    "build_detector": "jdfd_keras.model.network",
    "compile_detector": "jdfd_keras.training.compile",
    "train": "jdfd_keras.training.train",
    "load_run_model": "jdfd_keras.training.run_folder",
    "evaluate": "jdfd_keras.evaluation.evaluate",
    "evaluate_scores": "jdfd_keras.evaluation.evaluate_scores",
    "explain_faces": "jdfd_keras.inference.explain",
    "calibrate": "jdfd_keras.evaluation.calibrate",
    "load_calibration": "jdfd_keras.inference.model_files",
    "experiment": "jdfd_keras.experiments.experiment",
    "export_detector": "jdfd_keras.serving.export.exporter",
    "export_run": "jdfd_keras.serving.export.exporter",
    "serve": "jdfd_keras.serving.serve",
    "connect": "jdfd_keras.client",
    "score_faces": "jdfd_keras.client",
    "score_files": "jdfd_keras.client",
    "local_scorer": "jdfd_keras.inference.backends",
    "remote_scorer": "jdfd_keras.inference.backends",
    "predict_file": "jdfd_keras.prediction.predict",
    "predict_files": "jdfd_keras.prediction.predict",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'jdfd_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return __all__
