"""Verdicts of several models on the same files, and in words whether they agree.

Takes what each model found; returns Opinions. Nothing is averaged: a mean of scores means something
only with a calibration of the whole ensemble.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jdfd_keras.inference.verdict import NO_FACE, VERDICTS, Verdict, verdict_text
from jdfd_keras.io.results import Result
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.prediction.result_folder import FailedFile

KINDS = ("model", "server", "plug-in")
AGREE, PARTIAL, DISAGREE, SINGLE, NONE = AGREEMENTS = (
    *("agree", "partial", "disagree", "single", "none"),
)
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
        digest: SHA-256 of its weights, of a plug-in of the file of its module; "" if unknown.
        engine: Engine that computes its scores.
        is_calibrated: Whether its thresholds are of a calibration, and not 0.5 or requested.
        uncertain_from: Scores below it are `no_evidence`, for files with one person.
        uncertain_to: Scores at or above it are `fake`.
        error: Why it gave no verdict on any file; "" if it did.
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
        text: The same in one or more sentences.
    """

    path: str
    opinions: tuple[FileOpinion, ...]
    agreement: str
    text: str


@dataclass(frozen=True)
class Opinions(Result):
    """Verdicts of several models on the same files: the JSON of `predict` with several models."""

    models: tuple[OpinionSource, ...]
    files: tuple[FileOpinions, ...]
    # Of each model in their order, with all evidence; None for a plug-in, and for a model that gave
    # no verdict on any file.
    predictions: tuple[Predictions | None, ...]
    skipped: int = 0  # files below folders without a video or image suffix
    note: str = NOT_COMBINED

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


def compare_opinions(path: str, opinions: Sequence[FileOpinion]) -> FileOpinions:
    """State whether models agree on a file.

    Args:
        path: The file.
        opinions: One of each model.

    Example:
        >>> found = [FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.1)]
        >>> compared = compare_opinions("clip.mp4", found)
        >>> compared.agreement
        'disagree'
        >>> compared.text
        '2 of 2 models have a verdict, and they disagree: a: fake; b: no evidence of manipulation.'
    """
    judged = [opinion for opinion in opinions if opinion.verdict not in ("", NO_FACE)]
    kinds = {opinion.verdict for opinion in judged}
    if not judged:
        agreement = NONE
    elif len(judged) == 1:
        agreement = SINGLE
    elif len(kinds) == 1:
        agreement = AGREE
    else:
        agreement = DISAGREE if {"fake", "no_evidence"} <= kinds else PARTIAL
    return FileOpinions(path, tuple(opinions), agreement, _describe(opinions, agreement))


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

    Example:
        >>> same_weights([OpinionSource(label, "model", "m", digest="ab") for label in "ab"])
        'a and b have the same weights: together they are one opinion.'
    """
    for model in models:
        labels = [other.label for other in models if model.digest and other.digest == model.digest]
        if len(labels) > 1:
            *first, last = labels
            return (
                f"{', '.join(first)} and {last} have the same weights: together they are one "
                "opinion."
            )
    return ""


def _describe(opinions: Sequence[FileOpinion], agreement: str) -> str:
    judged = [opinion for opinion in opinions if opinion.verdict not in ("", NO_FACE)]
    count = f"{len(judged)} of {len(opinions)} models"
    ordered = sorted(judged, key=lambda opinion: VERDICTS.index(opinion.verdict))
    each = "; ".join(f"{opinion.label}: {verdict_text(opinion.verdict)}" for opinion in ordered)
    verdict = verdict_text(ordered[0].verdict) if ordered else ""
    text = {
        AGREE: f"{count} have a verdict, and they agree: {verdict}.",
        PARTIAL: f"{count} have a verdict, and they agree in part: {each}.",
        DISAGREE: f"{count} have a verdict, and they disagree: {each}.",
        SINGLE: f"{count} has a verdict: {each}.",
        NONE: f"None of {len(opinions)} models has a verdict.",
    }[agreement]
    for opinion in opinions:
        if opinion.error:
            text += f" {opinion.label} has none: {opinion.error.rstrip('.')}."
        elif opinion.verdict == NO_FACE:
            text += f" {opinion.label} found no face."
    return text
