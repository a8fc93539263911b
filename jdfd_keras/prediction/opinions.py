"""Verdicts of several models on the same files, and in words whether they agree.

Takes what each model found; returns Opinions. Nothing is averaged: a mean of scores means something
only with a calibration of the whole ensemble.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.inference.verdict import NO_FACE, VERDICTS, Verdict, verdict_text
from jdfd_keras.io.console import FORMULA, csv_text, plural
from jdfd_keras.io.results import Result
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.predictions import Predictions

MODEL, SERVER, PLUGIN = KINDS = ("model", "server", "plug-in")
AGREE, PARTIAL, DISAGREE, SINGLE, NONE = AGREEMENTS = (
    *("agree", "partial", "disagree", "single", "none"),
)
COLUMNS = (
    *("path", "label", "kind", "verdict", "score", "uncertain_from", "uncertain_to", "agreement"),
    *("error", "code", "credentials", "ai_claims", "note"),
)
MAX_REASON = 300  # characters of an error in a text about a file
NOT_COMBINED = (
    "There is no combined score, since no calibration of these models together exists. Models that "
    "learned from similar data also err together."
)


@dataclass(frozen=True)
class OpinionSource(Result):
    """A model that was asked.

    Attributes:
        label: Its name, which no other one has.
        kind: One of KINDS.
        where: Path, URL, or `module:function`.
        version: Version of the model; "" if it states none.
        digest: SHA-256 of its weights, of a plug-in of the files of its code; "" if unknown.
        engine: Engine that computes its scores.
        is_calibrated: Whether its thresholds are of a calibration, or those that a plug-in states,
            and not 0.5 or requested.
        uncertain_from: Scores below it are `no_evidence`, for files with one person.
        uncertain_to: Scores at or above it are `fake`.
        error: Why it could not be asked about any file; "" if it could.
    """

    label: str
    kind: str
    where: str
    version: str = ""
    digest: str = ""
    engine: str = ""
    is_calibrated: bool = False
    uncertain_from: float = 0.5
    uncertain_to: float = 0.5
    error: str = ""


@dataclass(frozen=True)
class FileOpinion(Result):
    """Verdict of one model on one file.

    Attributes:
        label: Label of the model.
        verdict: As that of a Verdict; "" if there is none.
        score: P(fake) of the file by this model; None if there is none.
        error: Why there is no verdict; "" if there is one.
        code: The same for programs, as that of a FailedFile; "" if there is a verdict.
    """

    label: str
    verdict: str = ""
    score: float | None = None
    error: str = ""
    code: str = ""


@dataclass(frozen=True)
class FileOpinions(Result):
    """Verdicts of all models on one file.

    Attributes:
        path: The file.
        opinions: In the order of the models.
        agreement: One of AGREEMENTS: all verdicts are the same; `uncertain` beside one other;
            `fake` beside `no_evidence`; only one model has a verdict; none has. A file without a
            face has no verdict in this sense.
        text: The same in one or more sentences; a long reason is cut off.
        credentials: Content Credentials of the file; None if they were not read.
    """

    path: str
    opinions: tuple[FileOpinion, ...]
    agreement: str
    text: str
    credentials: ContentCredentials | None = None


@dataclass(frozen=True)
class Opinions(Result):
    """Verdicts of several models on the same files: the JSON of `predict` with several models."""

    models: tuple[OpinionSource, ...]
    files: tuple[FileOpinions, ...]
    # Of each model in their order, with all evidence; None for a plug-in, and for a model that
    # could not be asked about any file.
    predictions: tuple[Predictions | None, ...]
    skipped: int = 0  # files below folders without a video or image suffix
    note: str = NOT_COMBINED  # of `describe_models`
    case: str = ""  # case number, as the user gave it
    examiner: str = ""  # who examines the files, as the user gave it

    @property
    def has_failures(self) -> bool:
        """Whether a model or a file failed."""
        return any(opinion.error for file in self.files for opinion in file.opinions)


def opinion_of(label: str, record: Verdict | FailedFile) -> FileOpinion:
    """Return what a model found as an opinion.

    Example:
        >>> opinion_of("a", FailedFile("x.mp4", "not a video", code="undecodable")).error
        'not a video'
    """
    if isinstance(record, FailedFile):
        return FileOpinion(label, error=record.error, code=record.code)
    return FileOpinion(label, record.verdict, record.score)


def compare_opinions(
    path: str,
    opinions: Sequence[FileOpinion],
    credentials: ContentCredentials | None = None,
) -> FileOpinions:
    """State whether models agree on a file.

    Args:
        path: The file.
        opinions: One of each model.
        credentials: Content Credentials of the file.

    Example:
        >>> found = [FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.1)]
        >>> compared = compare_opinions("clip.mp4", found)
        >>> compared.agreement
        'disagree'
        >>> compared.text
        '2 of 2 models have a verdict, and they disagree: a: fake; b: no evidence of manipulation.'
    """
    known = [opinion for opinion in opinions if opinion.verdict not in ("", NO_FACE)]
    kinds = {opinion.verdict for opinion in known}
    if not known:
        agreement = NONE
    elif len(known) == 1:
        agreement = SINGLE
    elif len(kinds) == 1:
        agreement = AGREE
    else:
        agreement = DISAGREE if {"fake", "no_evidence"} <= kinds else PARTIAL
    text = _describe(opinions, agreement)
    return FileOpinions(path, tuple(opinions), agreement, text, credentials)


def count_agreements(files: Sequence[FileOpinions]) -> dict[str, int]:
    """Return the number of files by agreement, in the order of AGREEMENTS, without zeros.

    Example:
        >>> count_agreements([compare_opinions("a.mp4", [FileOpinion("a", "fake", 0.9)])])
        {'single': 1}
    """
    counts = Counter(file.agreement for file in files)
    return {agreement: counts[agreement] for agreement in AGREEMENTS if counts[agreement]}


def unique_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are equal: a later one gets a number.

    Example:
        >>> unique_labels(["detector", "detector", "other"])
        ('detector', 'detector-2', 'other')
    """
    labels: list[str] = []
    for name in names:
        label, number = name, 2
        while label.casefold() in {known.casefold() for known in labels}:
            label, number = f"{name}-{number}", number + 1
        labels.append(label)
    return tuple(labels)


def same_weights(models: Sequence[OpinionSource]) -> str:
    """Return a sentence if several models have the same weights; "" if not.

    Plug-ins of one module have its digest in common, and may still be different ones.

    Example:
        >>> same_weights([OpinionSource(label, "model", "m", digest="ab") for label in "ab"])
        'a and b have the same weights: together they are one opinion.'
    """
    groups: dict[str, list[str]] = {}
    for model in models:
        if model.digest and model.kind != PLUGIN:
            groups.setdefault(model.digest, []).append(model.label)
    return " ".join(
        f"{', '.join(first)} and {last} have the same weights: together they are one opinion."
        for *first, last in groups.values()
        if first
    )


def describe_models(models: Sequence[OpinionSource]) -> str:
    """Return what a reader must know of these models together; "" of one alone.

    Example:
        >>> models = [OpinionSource(label, "model", "m", digest="ab") for label in "ab"]
        >>> describe_models(models).removeprefix(NOT_COMBINED)
        ' a and b have the same weights: together they are one opinion.'
        >>> describe_models(models[:1])
        ''
    """
    return f"{NOT_COMBINED} {same_weights(models)}".rstrip() if len(models) > 1 else ""


def shorten_reason(text: str) -> str:
    """Return a text of at most MAX_REASON characters, with dots where it is cut off.

    Example:
        >>> shorten_reason("a" * 400)[295:]
        'aaaaa...'
    """
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def opinions_to_csv(opinions: Opinions) -> str:
    """Format opinions as a CSV table: a header, and one row per file and model.

    Numbers are rounded to six digits. Texts are escaped as in the table of a result folder. Content
    Credentials and AI claims are those of the file. The note names models with the same weights.

    Example:
        >>> models = OpinionSource("a", "model", "saved_models/a"),
        >>> files = compare_opinions("clip.mp4", [FileOpinion("a", "fake", 0.9)]),
        >>> opinions_to_csv(Opinions(models, files, (None,))).splitlines()[1]
        'clip.mp4,a,model,fake,0.9,0.5,0.5,single,,,,,'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    verdicts = [{v.path: v for v in known.files} if known else {} for known in opinions.predictions]
    notes = [
        same_weights([other for other in opinions.models if other.digest == source.digest])
        if source.kind != PLUGIN
        else ""
        for source in opinions.models
    ]
    for file in opinions.files:
        path = f"./{file.path}" if file.path.startswith(FORMULA) else file.path
        credentials = file.credentials
        claims = credentials.ai_claims if credentials else ()
        for source, opinion, known, note in zip(
            opinions.models, file.opinions, verdicts, notes, strict=True
        ):
            row = [path, opinion.label, source.kind, opinion.verdict]
            numbers = [None, None, None]
            if opinion.verdict:
                # Those for the number of people of this file, if it is known.
                thresholds = known.get(file.path, source)
                numbers = [opinion.score, thresholds.uncertain_from, thresholds.uncertain_to]
            row += ["" if number is None else round(number, 6) for number in numbers]
            row += [file.agreement, " ".join(opinion.error.split()), opinion.code]
            row.append(credentials.state if credentials else "")
            row.append("; ".join(f"{claim.source}: {claim.text}" for claim in claims))
            row.append(note)
            writer.writerow([csv_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().removesuffix("\n")


def _describe(opinions: Sequence[FileOpinion], agreement: str) -> str:
    known = [opinion for opinion in opinions if opinion.verdict not in ("", NO_FACE)]
    count = f"{len(known)} of {plural(len(opinions), 'model')}"
    ordered = sorted(known, key=lambda opinion: VERDICTS.index(opinion.verdict))
    each = "; ".join(f"{opinion.label}: {verdict_text(opinion.verdict)}" for opinion in ordered)
    verdict = verdict_text(ordered[0].verdict) if ordered else ""
    text = {
        AGREE: f"{count} have a verdict, and they agree: {verdict}.",
        PARTIAL: f"{count} have a verdict, and they agree in part: {each}.",
        DISAGREE: f"{count} have a verdict, and they disagree: {each}.",
        SINGLE: f"{count} has a verdict: {each}.",
        NONE: f"None of {plural(len(opinions), 'model')} has a verdict.",
    }[agreement]
    is_alone = len(opinions) == 1
    if is_alone:
        text = f"{each}." if known else ""
    for opinion in opinions:
        if opinion.error:
            lack = "has no verdict" if is_alone else "has none"
            reason = shorten_reason(opinion.error.rstrip("."))
            text += f" {opinion.label} {lack}: {reason}{'' if reason.endswith('...') else '.'}"
        elif opinion.verdict == NO_FACE:
            text += f" {opinion.label} found no face."
    return text.strip()
