"""Verdicts of several models on the same files, each on its own: one that fails costs no other.

Takes paths and models; returns Opinions. Models with equal face options share one extraction.
On request it keeps a result folder:

options.json       that several models were asked
opinions.json      the opinions, written at the end
NAME/              of each model: its result folder, or the answers of a plug-in
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.faces.credentials import ContentCredentials, read_trust_anchors
from jdfd_keras.inference.verdict import NUM_TOP_FACES, Verdict
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.files import OPTIONS, atomic_path, init_folder
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.io.workers import count_workers
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FaceOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
)
from jdfd_keras.prediction.asked_models import (
    AskedModel,
    check_any,
    choose_folders,
    describe_source,
    list_models,
    load_models,
)
from jdfd_keras.prediction.extraction import Extractor
from jdfd_keras.prediction.file_credentials import collect_credentials
from jdfd_keras.prediction.file_list import FileList, describe_skipped, list_files
from jdfd_keras.prediction.kept_records import escape_name
from jdfd_keras.prediction.model_run import MODEL_UNAVAILABLE, Extractions, open_run
from jdfd_keras.prediction.opinions import (
    MODEL,
    FileOpinion,
    Opinions,
    compare_opinions,
    describe_models,
    opinion_of,
)
from jdfd_keras.prediction.plugin_run import ask_plugin, open_answers
from jdfd_keras.prediction.predict import check_numbers, describe_space
from jdfd_keras.prediction.result_folder import LINES, check_paths
from jdfd_keras.prediction.scoring import find_missing, guess_faces

OPINIONS = "opinions.json"


@dataclass(frozen=True)
class _FolderKind:
    """Content of a result folder."""

    content: str = "opinions"


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
    asked = list_models(models)
    if credentials and credentials.trust_anchors:  # an error of none of the models
        read_trust_anchors(credentials.trust_anchors)
    files, skipped = list_files(paths)
    for model in asked:
        check_paths(files, model=model.name if model.kind == MODEL else None, out=out)
    failed = find_missing(files, limits)
    if skipped:
        print(describe_skipped(skipped), file=sys.stderr)
    states = dict(files.read_states())
    existing = files.select(name not in failed for name in files.names)
    num_workers = count_workers(runtime.workers, len(existing))

    def open_extractor(paths: FileList, faces: FaceOptions) -> Extractor:
        return Extractor(paths, faces, num_workers, limits, credentials)

    with contextlib.ExitStack() as stack:
        stack.enter_context(reraise_disk_full(*describe_space(out)))
        if out is not None:
            stack.enter_context(_opened_folder(Path(out)))
        extractions = stack.enter_context(Extractions(open_extractor))
        # As in `predict_files`, extraction starts while models are loaded.
        if out is None or not any(Path(out).glob(f"*/{LINES}")):
            guesses = (guess_faces(m.name, options) for m in asked if m.kind == MODEL)
            if guess := next(filter(None, guesses), None):
                extractions.start(existing, guess)
        num_processes = count_workers(runtime.workers or 1, len(existing))
        load_models(asked, stack, engine, num_processes, limits)
        temporary = stack.enter_context(TemporaryFolder())
        names = choose_folders(asked, Path(out or temporary), (OPTIONS, OPINIONS))
        for model, name in zip(asked, names, strict=True):
            kept = Path(out, name) if out is not None else None
            with model.failing():
                _check_folder(kept)
                if model.plugin and not model.error:
                    folder = open_answers(kept, model.plugin, states)
                    model.answers = stack.enter_context(folder)
                elif model.predictor:
                    model.run = stack.enter_context(
                        open_run(
                            model.predictor,
                            options,
                            states.items(),
                            failed,
                            kept or Path(temporary, name),
                            out=kept,
                            num_top_faces=runtime.explain or NUM_TOP_FACES,
                            label=model.label,
                            credentials=credentials,
                        )
                    )
        check_any(asked)
        extractions.judge(files, [model.run for model in asked if model.run])
        credentials_of: dict[str, ContentCredentials] = {}  # by path, of the first model with some
        for model in asked:
            if model.run:
                num_explained = runtime.explain if explain else None
                predictions = model.run.collect(files.names, len(skipped), num_explained)
                model.error = "" if predictions.files else model.run.error
                model.predictions = None if model.error else predictions
                for path, record in zip(files.names, predictions.records, strict=True):
                    model.opinions[path] = opinion_of(model.label, record)
                    if isinstance(record, Verdict) and record.credentials:
                        credentials_of.setdefault(path, record.credentials)
            elif model.plugin and model.answers:
                thresholds = model.plugin.choose_thresholds(options.threshold)
                model.opinions = ask_plugin(
                    model.plugin, model.label, states, failed, model.answers, thresholds
                )
        # Plug-ins read no Content Credentials.
        unread = [
            path
            for path in existing
            if str(path) not in credentials_of
            and any(_has_verdict(model, str(path)) for model in asked)
        ]
        credentials_of |= collect_credentials(unread, states, num_workers, limits, credentials)
        opinions = _collect(asked, files.names, len(skipped), options, credentials_of)
        if out is not None:
            with (
                atomic_path(Path(out, OPINIONS)) as unfinished,
                open(unfinished, "w", encoding="utf-8") as file,
            ):
                file.writelines(opinions.json_parts())
                file.write("\n")
    return opinions


@contextlib.contextmanager
def _opened_folder(out: Path) -> Iterator[None]:
    """Create or open a result folder; remove a new one after an error if it holds nothing yet."""
    is_new = not (out / OPTIONS).is_file()
    created = [path for path in (out, *out.absolute().parents) if not path.exists()]
    init_folder(out, opinions=_FolderKind())
    try:
        if (out / OPINIONS).is_dir():
            raise IsADirectoryError(
                f"Expected a file for the opinions, or none yet; got the folder {out / OPINIONS}. "
                "Move it, or choose another --out."
            )
        yield
    except BaseException:
        if is_new and [path.name for path in out.iterdir()] == [OPTIONS]:
            (out / OPTIONS).unlink()
            for path in created:
                with contextlib.suppress(OSError):  # another run may use it
                    path.rmdir()
        raise


def _check_folder(path: Path | None) -> None:
    if path is not None and os.path.lexists(path) and not path.is_dir():
        raise NotADirectoryError(
            f"Expected a folder for the verdicts of a model, or none yet; got {path}, which is a "
            "file. Move it, or choose another --out."
        )


def _has_verdict(model: AskedModel, path: str) -> bool:
    return path in model.opinions and bool(model.opinions[path].verdict)


def _collect(
    models: Sequence[AskedModel],
    paths: Sequence[str],
    num_skipped: int,
    options: PredictOptions,
    credentials: Mapping[str, ContentCredentials],
) -> Opinions:
    compared = []
    for path in paths:
        each = []
        for model in models:
            lost = FileOpinion(model.label, error=escape_name(model.error), code=MODEL_UNAVAILABLE)
            each.append(model.opinions.get(path, lost))
        compared.append(compare_opinions(escape_name(path), each, credentials.get(path)))
    sources = tuple(describe_source(model, options) for model in models)
    return Opinions(
        models=sources,
        files=tuple(compared),
        predictions=tuple(model.predictions for model in models),
        skipped=num_skipped,
        note=describe_models(sources),
    )
