"""The models that are asked for opinions: recognized, loaded, named, and each with its own folder.

Takes the names that were requested; a model that cannot be used has its error instead.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.client.signatures import find_model, find_versions
from jdfd_keras.inference.backends import Predictor, load_predictor
from jdfd_keras.io.console import print_message, printable
from jdfd_keras.io.disk_space import is_disk_full
from jdfd_keras.io.files import OPTIONS, load_groups
from jdfd_keras.options import EngineOptions, LimitOptions, PredictOptions
from jdfd_keras.prediction.kept_records import escape_name
from jdfd_keras.prediction.model_run import ModelRun
from jdfd_keras.prediction.opinions import (
    MODEL,
    PLUGIN,
    SERVER,
    FileOpinion,
    OpinionSource,
    unique_labels,
)
from jdfd_keras.prediction.plugin_run import AnswerFolder
from jdfd_keras.prediction.plugins import Plugin, is_plugin
from jdfd_keras.prediction.predictions import Predictions

BEST = "best.keras"  # of a run folder, whose module imports Keras
MAX_LABEL_LENGTH = 80


@dataclass
class AskedModel:
    """A requested model, as far as it is loaded."""

    name: str  # as it was requested
    kind: str  # as that of an OpinionSource
    label: str = ""
    error: str = ""  # why it cannot be asked
    predictor: Predictor | None = None
    run: ModelRun | None = None
    plugin: Plugin | None = None
    answers: AnswerFolder | None = None
    opinions: dict[str, FileOpinion] = dataclasses.field(default_factory=dict)  # by path
    predictions: Predictions | None = None

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Let an error be that of this model alone."""
        try:
            yield
        except (OSError, ValueError) as error:
            if is_disk_full(error):  # of all models
                raise
            self.error = " ".join(str(error).split())
            self.predictor = None
            if self.label:  # else it is printed when it has one
                print_message(f"{self.label}: {printable(self.error)}")


def list_models(models: Sequence[str | Path]) -> list[AskedModel]:
    """Return requested models by what their names are.

    Raises:
        ValueError: If there is none, or two of them are the same, also by other names.

    Example:
        >>> [model.kind for model in list_models(["saved_models/detector", "my_scores:score"])]
        ['model', 'plug-in']
        >>> list_models(["detector", "saved_models/detector/1"])
        Traceback (most recent call last):
        ValueError: Expected different models; got detector and saved_models/detector/1, which ...
    """
    if isinstance(models, (str, Path)) or not models:
        raise ValueError(
            f"Expected a list of models; got {models!r}. Try [{str(models)!r}]."
            if models
            else "Expected at least one model; got none. Try the name of one."
        )
    names = list(map(str, models))
    asked = [
        AskedModel(name, SERVER if "://" in name else PLUGIN if is_plugin(name) else MODEL)
        for name in names
    ]
    advice = "Together they would be one opinion: name each model once."
    first: dict[str, str] = {}
    for model in asked:
        name = model.name
        if names.count(name) > 1:
            raise ValueError(
                f"Expected different models; got {_mask(name)} {names.count(name)} times. {advice}"
            )
        other = first.setdefault(_identify(model), name)
        if other != name:
            what = "server and model" if model.kind == SERVER else "files"
            raise ValueError(
                f"Expected different models; got {_mask(other)} and {_mask(name)}, which are the "
                f"same {what}. {advice}"
            )
    return asked


def _identify(model: AskedModel) -> str:
    """Return what is the same for all spellings of a model."""
    if model.kind != MODEL:
        return model.name.rstrip("/")
    path = Path(model.name)
    with contextlib.suppress(OSError, ValueError):  # a missing model is an error of its own
        path = Path(find_model(model.name))
        if (path / BEST).is_file():
            path /= BEST
        elif path.is_dir() and not (path / "saved_model.pb").is_file():
            path = next(iter(find_versions(path).values()))
    return os.path.realpath(path)


def load_models(
    models: Sequence[AskedModel],
    stack: contextlib.ExitStack,
    engine: EngineOptions | None,
    num_processes: int,
    limits: LimitOptions,
) -> None:
    """Load models, name them, and report those that cannot be loaded.

    Args:
        models: The models.
        stack: Closes them.
        engine: As for `load_predictor`, of local models.
        num_processes: Processes of each plug-in.
        limits: Limits of plug-ins.

    Raises:
        OSError: If none can be loaded.

    Example:
        >>> models = list_models(["saved_models/detector"])
        >>> with contextlib.ExitStack() as stack:
        ...     load_models(models, stack, None, 1, LimitOptions())
        ...     models[0].label
        'detector'
    """
    for model in models:
        if model.kind == PLUGIN:
            with model.failing():
                model.plugin = stack.enter_context(Plugin(model.name, num_processes, limits))
    # A server chooses its own engine.
    has_local = any(model.kind == MODEL for model in models)
    for model in models:
        with model.failing():
            if model.plugin:
                model.plugin.load()
            elif model.kind != PLUGIN:
                is_served = model.kind == SERVER and has_local
                model.predictor = load_predictor(model.name, None if is_served else engine)
                stack.callback(model.predictor.close)
    labels = unique_labels([_name_model(model) for model in models])
    for model, label in zip(models, labels, strict=True):
        model.label = label
    check_any(models)
    for model in models:
        if model.error:
            print_message(f"{model.label}: {printable(model.error)}")


def check_any(models: Sequence[AskedModel]) -> None:
    """Check that at least one model can be asked.

    Example:
        >>> check_any([AskedModel("detector", MODEL, error="No such model.")])
        Traceback (most recent call last):
        OSError: No such model.
    """
    if not all(model.error for model in models):
        return
    if len(models) == 1:
        raise OSError(models[0].error)
    errors = " ".join(f"{model.label}: {model.error}" for model in models)
    raise OSError(f"Expected at least one model that can be loaded; got none of {errors}")


def _name_model(model: AskedModel) -> str:
    """Return the name of a model in its metadata, else a part of its path or URL."""
    if model.plugin or model.kind == PLUGIN:
        return model.name
    name = model.predictor.metadata.name if model.predictor else ""
    if not name:
        path = re.sub(r"/(versions|labels)/[^/]+/?$", "", _mask(model.name))
        path = path.rstrip("/").removesuffix(".keras")
        folder, _, name = path.rpartition("/")
        if name.isdecimal():  # a version
            name = folder.rpartition("/")[2]
    return printable(name)[:MAX_LABEL_LENGTH] or "model"


def _mask(name: str) -> str:
    """Remove credentials from a URL."""
    return re.sub("//[^/]*@", "//", name)


def choose_folders(models: Sequence[AskedModel], out: Path, reserved: Sequence[str]) -> list[str]:
    """Return the name of the folder of each model, which does not depend on their order.

    A model whose folder exists, by the SHA-256 of its weights or the name of a plug-in, gets it
    again, whichever number it has; else one by its label, which no other model has.

    Args:
        models: The models, with labels.
        out: The folder of their folders, which need not exist.
        reserved: Names of other files.

    Example:
        >>> models = [AskedModel(name, MODEL, label=name) for name in ("a/b", "a_b", "notes")]
        >>> choose_folders(models, Path("new_folder"), ["notes"])
        ['a_b', 'a_b-2', 'notes-2']
    """
    names = [re.sub(r"[^\w.-]", "_", model.label).strip(".") or "model" for model in models]
    names = list(unique_labels([*reserved, *names])[len(reserved) :])
    kept = {path.parent.name: path for path in sorted(out.glob(f"*/{OPTIONS}"))}
    owners = {name: _read_owner(path) for name, path in kept.items()}
    wanted = [_own(model) for model in models]
    chosen: dict[int, str] = {}

    def choose(index: int, found: Sequence[str]) -> None:
        if index not in chosen and wanted[index]:
            free = [name for name in found if name not in chosen.values()]
            free = [name for name in free if owners.get(name) == wanted[index]]
            if free:
                chosen[index] = free[0]

    for index, name in enumerate(names):
        choose(index, [name])
    for index, name in enumerate(names):
        stem = re.escape(re.sub(r"-\d+$", "", name))
        choose(index, [other for other in kept if re.fullmatch(rf"{stem}(-\d+)?", other)])
    for index, name in enumerate(names):
        if index not in chosen:
            used = [*reserved, *chosen.values()]
            if name in used:  # of another model: neither does an existing folder fit
                used += kept
            chosen[index] = unique_labels([*used, name])[-1]
    return [chosen[index] for index in range(len(names))]


def _own(model: AskedModel) -> tuple[str, str] | None:
    if model.plugin:
        return PLUGIN, model.plugin.name
    return (MODEL, model.predictor.metadata.digest) if model.predictor else None


def _read_owner(path: Path) -> tuple[str, str] | None:
    """Return which model a folder belongs to, by its options; None if that is unknown."""
    with contextlib.suppress(AttributeError, KeyError, OSError, TypeError, ValueError):
        groups = load_groups(path)
        if "plugin" in groups:
            return PLUGIN, groups["plugin"]["name"]
        return MODEL, groups["model"]["digest"]
    return None


def describe_source(model: AskedModel, options: PredictOptions) -> OpinionSource:
    """Return a model as a source of opinions.

    Args:
        model: The model.
        options: The requested options.

    Example:
        >>> model = AskedModel("detector", MODEL, "detector", error="No such model.")
        >>> describe_source(model, PredictOptions()).where
        'detector'
    """
    error = escape_name(model.error)
    source = OpinionSource(model.label, model.kind, where=_mask(model.name), error=error)
    if model.run:
        predictor, thresholds = model.run.predictor, model.run.calibration
        metadata = predictor.metadata
        is_calibrated = metadata.calibration is not None
        source = dataclasses.replace(
            source,
            where=predictor.name,
            version=str(metadata.version or ""),
            digest=metadata.digest,
            engine=predictor.engine.describe(),
        )
    elif model.plugin and model.answers:
        facts, thresholds = model.plugin.facts, model.plugin.choose_thresholds(options.threshold)
        is_calibrated = facts.thresholds is not None
        source = dataclasses.replace(source, version=facts.version, digest=facts.digest)
    else:
        return source
    return dataclasses.replace(
        source,
        is_calibrated=is_calibrated and options.threshold is None,
        uncertain_from=thresholds.uncertain_from,
        uncertain_to=thresholds.uncertain_to,
    )
