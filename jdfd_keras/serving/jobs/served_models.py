"""The models that the file service asks about each file, and the identity of them together.

Takes names, paths, URLs and plug-ins; returns ServedModels. Each model is loaded once, and several
threads may use it.
"""

import contextlib
import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import choose_faces, decision_thresholds
from jdfd_keras.options import EngineOptions, LimitOptions, PredictOptions
from jdfd_keras.prediction.opinions import OpinionSource, unique_labels
from jdfd_keras.prediction.plugins import Plugin, is_plugin
from jdfd_keras.serving.jobs.job_types import digest_settings

MODEL, SERVER, PLUGIN = "model", "server", "plug-in"  # kinds of an OpinionSource


@dataclass(frozen=True)
class ServedModel:
    """A loaded model or plug-in.

    Attributes:
        label: Its name, which no other one has.
        predictor: The model; None for a plug-in.
        plugin: The plug-in, whose processes have ended; None for a model.
    """

    label: str
    predictor: Predictor | None = None
    plugin: Plugin | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """SHA-256 of its weights, its engine as text, and SHA-256 of its settings."""
        if self.predictor:
            metadata, engine = self.predictor.metadata, self.predictor.engine
            return metadata.digest, engine.describe(), digest_settings(metadata)
        assert self.plugin
        facts = self.plugin.facts
        settings = _digest([self.plugin.name, facts.version, facts.thresholds])
        return facts.digest, PLUGIN, settings

    def thresholds(self, options: PredictOptions) -> Calibration:
        """Return the thresholds of its verdicts.

        Raises:
            ValueError: If the requested one is out of range.
        """
        if self.predictor:
            return decision_thresholds(self.predictor.metadata, options)
        assert self.plugin
        return self.plugin.choose_thresholds(options.threshold)

    def check(self, options: PredictOptions) -> None:
        """Raise a ValueError if options do not suit it."""
        if self.predictor:
            choose_faces(self.predictor.metadata, options)
        self.thresholds(options)

    def to_source(self, options: PredictOptions) -> OpinionSource:
        """Return how it gives its opinion with these options."""
        digest, engine, _ = self.identity
        thresholds = self.thresholds(options)
        has_own = options.threshold is None
        if self.predictor:
            metadata, where = self.predictor.metadata, self.predictor.name
            kind = SERVER if "://" in where else MODEL
            version = str(metadata.version or "")
            is_calibrated = has_own and metadata.calibration is not None
        else:
            assert self.plugin
            kind, where, engine = PLUGIN, self.plugin.name, ""
            stated = self.plugin.facts
            version, is_calibrated = stated.version, has_own and stated.thresholds is not None
        return OpinionSource(
            self.label,
            kind,
            where,
            version,
            digest,
            engine,
            is_calibrated=is_calibrated,
            uncertain_from=thresholds.uncertain_from,
            uncertain_to=thresholds.uncertain_to,
        )

    def describe(self) -> str:
        """Return its label and facts about it as text.

        Example:
            >>> ServedModel("m:f", plugin=Plugin("m:f")).describe()
            'm:f: plug-in, version not stated, not calibrated: the score is not a probability'
        """
        source = self.to_source(PredictOptions())
        version = f"version {source.version}" if source.version else "version not stated"
        facts = [source.kind, version, source.engine]
        if not source.is_calibrated:
            facts.append("not calibrated: the score is not a probability")
        if self.predictor and self.predictor.metadata.demonstration:
            facts.append("for demonstration only")
        return f"{self.label}: {', '.join(filter(None, facts))}"


@dataclass(frozen=True)
class ServedModels:
    """All models of a service, in the order of their opinions.

    Attributes:
        models: At least one.
        trust_list: SHA-256 of the trusted authorities of Content Credentials; "" without them.
    """

    models: tuple[ServedModel, ...]
    trust_list: str = ""

    @property
    def single(self) -> Predictor | None:
        """The predictor if there is a single model, whose results are Predictions; else None."""
        return self.models[0].predictor if len(self.models) == 1 else None

    @property
    def metadata(self) -> ModelMetadata | None:
        """Metadata of the first model that has them; None if all are plug-ins."""
        found = [model.predictor.metadata for model in self.models if model.predictor]
        return found[0] if found else None

    @property
    def identity(self) -> tuple[str, str, str]:
        """SHA-256 of the weights, engines as text, and SHA-256 of the settings, of all together.

        Those of a single model are its own.
        """
        identities = [model.identity for model in self.models]
        if self.single:
            digest, engine, settings = identities[0]
        else:
            digest = _digest([one for one, _, _ in identities])
            engine = "; ".join(one for _, one, _ in identities)
            labels = [model.label for model in self.models]
            settings = _digest([labels, [one for _, _, one in identities]])
        if self.trust_list:  # the result states whether a signer is trusted
            settings = _digest([settings, self.trust_list])
        return digest, engine, settings

    def check(self, options: PredictOptions) -> None:
        """Check that options suit at least one model; the others have no opinion.

        Raises:
            ValueError: If they suit none; the error of the first one.
        """
        errors = []
        for model in self.models:
            try:
                model.check(options)
            except ValueError as error:
                errors.append(error)
        if len(errors) == len(self.models):
            raise errors[0]

    def find(self, digest: str) -> Predictor | None:
        """Return the predictor with these weights; None if the service has it no longer."""
        found = [model.predictor for model in self.models if model.predictor]
        return next((one for one in found if one.metadata.digest == digest), None)

    def close(self) -> None:
        """Release connections and memory."""
        for model in self.models:
            if model.predictor:
                model.predictor.close()


def load_models(
    given: Sequence[str | Path | None],
    engine: EngineOptions | None,
    limits: LimitOptions,
    load: Callable[[str | Path | None, EngineOptions | None], Predictor],
    trust_list: str = "",
) -> ServedModels:
    """Load the models of a service.

    Args:
        given: Models, servers and plug-ins, at least one; None is the detector of the package.
        engine: Engine of the scores of local models.
        limits: Limits of a plug-in, also for its import.
        load: `load_predictor`.
        trust_list: As in ServedModels.

    Raises:
        OSError, ValueError: If one of them cannot be loaded; the others are closed.

    Example:
        >>> from jdfd_keras.inference.backends import load_predictor
        >>> given = ["saved_models/detector", "saved_models/detector"]
        >>> models = load_models(given, None, LimitOptions(), load_predictor)
        >>> [model.label for model in models.models]
        ['detector', 'detector-2']
        >>> models.close()
    """
    loaded: list[Predictor | Plugin] = []
    with contextlib.ExitStack() as stack:
        for model in given:
            if model is not None and is_plugin(model):
                with Plugin(str(model), limits=limits) as plugin:
                    plugin.load()
                loaded.append(plugin)
                continue
            # A server beside local models chooses its own engine.
            is_other = len(given) > 1 and "://" in str(model)
            predictor = _share(load(model, None if is_other else engine))
            stack.callback(predictor.close)
            loaded.append(predictor)
        stack.pop_all()
    labels = unique_labels(
        [one.metadata.name if isinstance(one, Predictor) else one.name for one in loaded]
    )
    return ServedModels(
        tuple(
            ServedModel(label, predictor=one)
            if isinstance(one, Predictor)
            else ServedModel(label, plugin=one)
            for label, one in zip(labels, loaded, strict=True)
        ),
        trust_list,
    )


def _share(predictor: Predictor) -> Predictor:
    """Return a predictor that several threads may use."""
    lock = threading.Lock()

    def guard(function):
        def call(faces: np.ndarray) -> np.ndarray:
            with lock:
                return function(faces)

        return function and call

    return dataclasses.replace(
        predictor,
        score=guard(predictor.score),
        explain=guard(predictor.explain),
        reconstruct_error=guard(predictor.reconstruct_error),
    )


def _digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
