"""Verdicts of several models on the same files, each on its own: one that fails costs no other.

Takes paths and models; returns Opinions. Models with equal face options share one extraction.
On request it keeps a result folder:

options.json       that several models were asked
opinions.json      the opinions, written at the end
NAME/              of each model: its result folder, or the answers of a plug-in
"""

import contextlib
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.faces.credentials import read_trust_anchors
from jdfd_keras.inference.backends import Predictor, load_predictor
from jdfd_keras.inference.verdict import NUM_TOP_FACES
from jdfd_keras.io.console import print_message, printable
from jdfd_keras.io.files import OPTIONS, init_folder, write_text_atomically
from jdfd_keras.io.workers import count_workers
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FaceOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
)
from jdfd_keras.prediction.extraction import (
    Extractor,
    describe_skipped,
    list_files,
    read_state,
)
from jdfd_keras.prediction.model_run import (
    MODEL_UNAVAILABLE,
    Extractions,
    ModelRun,
    open_run,
)
from jdfd_keras.prediction.opinions import (
    MODEL,
    PLUGIN,
    SERVER,
    FileOpinion,
    Opinions,
    OpinionSource,
    compare_opinions,
    opinion_of,
    unique_labels,
)
from jdfd_keras.prediction.plugin_run import AnswerFolder, ask_plugin, open_answers
from jdfd_keras.prediction.plugins import Plugin, is_plugin
from jdfd_keras.prediction.predict import check_numbers
from jdfd_keras.prediction.predictions import Predictions, escape_name
from jdfd_keras.prediction.result_folder import LINES, check_paths
from jdfd_keras.prediction.scoring import find_missing, guess_faces

OPINIONS = "opinions.json"
MAX_LABEL_LENGTH = 80


@dataclass(frozen=True)
class _FolderKind:
    """Content of a result folder."""

    content: str = "opinions"


@dataclass
class _Model:
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


def predict_opinions(
    paths: Sequence[str | Path],
    models: Sequence[str | Path],
    options: PredictOptions | None = None,
    runtime: PredictRuntime | None = None,
    *,
    out: str | Path | None = None,
    explain: bool = False,
    limits: LimitOptions | None = None,
    engine: EngineOptions | None = None,
    credentials: CredentialOptions | None = None,
) -> Opinions:
    """Return the verdicts of several models on each of several files, and whether they agree.

    Each verdict is by the thresholds of its own model, and nothing is averaged. A model that cannot
    be loaded, a server that is gone, or a plug-in that fails costs its own verdicts only, which
    then state the reason; it is also printed to stderr at once.

    Args:
        paths: As for `predict_files`.
        models: Models, of which no two are equal: paths, names and URLs as for `load_predictor`,
            and plug-ins `module:function`, which are called in processes of their own with the path
            of each file and return P(fake), or one for each person of the file.
        options: As for `predict_files`; a threshold is that of all models.
        runtime: As for `predict_files`. A plug-in has as many processes as `runtime.workers`
            states, and one if it states none.
        out: Result folder, with a folder for each model as that of `predict_files`, and with
            `opinions.json` at the end. A second call with it does not ask a model again about a
            file that it has a verdict on and that has not changed since.
        explain: As for `predict_files`, for each model.
        limits: Limits of one file, for each model and each plug-in; the defaults if not given.
        engine: Backend and precision of the scores of local models, as for `load_predictor`.
        credentials: How Content Credentials are checked; the defaults if not given.

    Raises:
        OSError: If no file exists, no model can be loaded, or an output cannot be written.
        ValueError: If an option is out of range, there is no file or no model, a model is given
            twice, or `out` holds something else.

    Example:
        >>> _ = Path("my_scores.py").write_text("def score(path): return 0.75")
        >>> models = ["saved_models/detector", "my_scores:score"]
        >>> opinions = predict_opinions(["video.mp4"], models)
        >>> [opinion.label for opinion in opinions.files[0].opinions]
        ['detector', 'my_scores:score']
        >>> opinions.files[0].opinions[1].verdict
        'fake'
    """
    options, runtime = options or PredictOptions(), runtime or PredictRuntime(workers=1)
    limits = limits or LimitOptions()
    check_numbers(options, runtime, limits)
    asked = _list_models(models)
    if credentials and credentials.trust_anchors:  # an error of none of the models
        read_trust_anchors(credentials.trust_anchors)
    files, skipped = list_files(paths)
    for model in asked:
        check_paths(files, model=model.name if model.kind == MODEL else None, out=out)
    failed = find_missing(files, limits)
    if skipped:
        print(describe_skipped(skipped), file=sys.stderr)
    states = {str(path): read_state(path) for path in files}
    existing = [path for path in files if str(path) not in failed]
    num_workers = count_workers(runtime.workers, len(existing))

    def open_extractor(paths: list[Path], faces: FaceOptions) -> Extractor:
        return Extractor(paths, faces, num_workers, limits, credentials)

    with contextlib.ExitStack() as stack:
        if out is not None:
            init_folder(out, opinions=_FolderKind())
        extractions = stack.enter_context(Extractions(open_extractor))
        # As in `predict_files`, extraction starts while models are loaded.
        if out is None or not any(Path(out).glob(f"*/{LINES}")):
            guesses = (guess_faces(m.name, options) for m in asked if m.kind == MODEL)
            if guess := next(filter(None, guesses), None):
                extractions.start(existing, guess)
        num_processes = count_workers(runtime.workers or 1, len(existing))
        _load_models(asked, stack, engine, num_processes, limits)
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="jdfd-keras-"))
        names = [re.sub(r"[^\w.-]", "_", model.label).strip(".") or "model" for model in asked]
        names = unique_labels([OPTIONS, OPINIONS, *names])[2:]
        for model, name in zip(asked, names, strict=True):
            kept = Path(out, name) if out is not None else None
            with _failing(model):
                if model.plugin and not model.error:
                    folder = open_answers(kept, model.plugin, states)
                    model.answers = stack.enter_context(folder)
                elif model.predictor:
                    model.run = stack.enter_context(
                        open_run(
                            model.predictor,
                            options,
                            states,
                            failed,
                            kept or Path(temporary, name),
                            out=kept,
                            num_top_faces=runtime.explain or NUM_TOP_FACES,
                            label=model.label,
                            credentials=credentials,
                        )
                    )
        _check_any(asked)
        extractions.judge(files, [model.run for model in asked if model.run])
        for model in asked:
            if model.run:
                num_explained = runtime.explain if explain else None
                predictions = model.run.collect(files, len(skipped), num_explained)
                model.error = "" if predictions.files else model.run.error
                model.predictions = None if model.error else predictions
                for path, record in zip(files, predictions.records, strict=True):
                    model.opinions[str(path)] = opinion_of(model.label, record)
            elif model.plugin and model.answers:
                thresholds = model.plugin.choose_thresholds(options.threshold)
                model.opinions = ask_plugin(
                    model.plugin, model.label, states, failed, model.answers, thresholds
                )
        opinions = _collect(asked, files, len(skipped), options)
        if out is not None:
            text = json.dumps(opinions.to_dict(), indent=2)
            write_text_atomically(Path(out, OPINIONS), text + "\n")
    return opinions


def _list_models(models: Sequence[str | Path]) -> list[_Model]:
    if isinstance(models, (str, Path)) or not models:
        raise ValueError(
            f"Expected a list of models; got {models!r}. Try [{str(models)!r}]."
            if models
            else "Expected at least one model; got none. Try the name of one."
        )
    names = list(map(str, models))
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"Expected different models; got {_mask(name)} {names.count(name)} times. Together "
                "they would be one opinion: name each model once."
            )
    return [
        _Model(name, SERVER if "://" in name else PLUGIN if is_plugin(name) else MODEL)
        for name in names
    ]


def _load_models(
    models: Sequence[_Model],
    stack: contextlib.ExitStack,
    engine: EngineOptions | None,
    num_processes: int,
    limits: LimitOptions,
) -> None:
    """Load models, name them, and report those that cannot be loaded."""
    for model in models:
        if model.kind == PLUGIN:
            with _failing(model):
                model.plugin = stack.enter_context(Plugin(model.name, num_processes, limits))
    # A server chooses its own engine.
    has_local = any(model.kind == MODEL for model in models)
    for model in models:
        with _failing(model):
            if model.plugin:
                model.plugin.load()
            elif model.kind != PLUGIN:
                is_served = model.kind == SERVER and has_local
                model.predictor = load_predictor(model.name, None if is_served else engine)
                stack.callback(model.predictor.close)
    labels = unique_labels([_name_model(model) for model in models])
    for model, label in zip(models, labels, strict=True):
        model.label = label
    _check_any(models)
    for model in models:
        if model.error:
            print_message(f"{model.label}: {printable(model.error)}")


@contextlib.contextmanager
def _failing(model: _Model) -> Iterator[None]:
    """Let an error be that of one model."""
    try:
        yield
    except (OSError, ValueError) as error:
        model.error = " ".join(str(error).split())
        model.predictor = None
        if model.label:  # else it is printed when it has one
            print_message(f"{model.label}: {printable(model.error)}")


def _check_any(models: Sequence[_Model]) -> None:
    """Check that at least one model can be asked."""
    if not all(model.error for model in models):
        return
    if len(models) == 1:
        raise OSError(models[0].error)
    errors = " ".join(f"{model.label}: {model.error}" for model in models)
    raise OSError(f"Expected at least one model that can be loaded; got none of {errors}")


def _name_model(model: _Model) -> str:
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


def _collect(
    models: Sequence[_Model], files: Sequence[Path], num_skipped: int, options: PredictOptions
) -> Opinions:
    compared = []
    for path in files:
        each = []
        for model in models:
            lost = FileOpinion(model.label, error=escape_name(model.error), code=MODEL_UNAVAILABLE)
            each.append(model.opinions.get(str(path), lost))
        compared.append(compare_opinions(escape_name(str(path)), each))
    return Opinions(
        models=tuple(_describe_source(model, options) for model in models),
        files=tuple(compared),
        predictions=tuple(model.predictions for model in models),
        skipped=num_skipped,
    )


def _describe_source(model: _Model, options: PredictOptions) -> OpinionSource:
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
