"""The outcome of an analysis: JSON, verdict and error of its job, from what the models found.

Takes Predictions of a single model, or opinions of several; returns an Outcome.
"""

from collections.abc import Sequence

from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.inference.verdict import NO_FACE
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.opinions import (
    AGREE,
    SINGLE,
    FileOpinion,
    Opinions,
    OpinionSource,
    compare_opinions,
    describe_models,
)
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.serving.jobs.job_types import JobError, Outcome


def outcome_of_one(predictions: Predictions, name: str) -> Outcome:
    """Return the outcome of a single model.

    Args:
        predictions: Its predictions on one file.
        name: Name of the file, for messages.

    Example:
        >>> import jdfd_keras as jk
        >>> predictions = jk.predict_files(["video.mp4"], model="saved_models/detector")
        >>> outcome_of_one(predictions, "video.mp4").score == predictions.files[0].score
        True
    """
    [record] = predictions.records
    result, error = predictions.to_dict(), None
    if isinstance(record, FailedFile):
        return Outcome(result, error=JobError(record.code, record.error))
    if record.verdict == NO_FACE:
        text = (
            f"Expected a face; got none in the sampled frames of {name} ({record.num_frames}). "
            "Sample more frames, or check that a face is large enough."
        )
        error = JobError("no_face", text)
    return Outcome(result, record.verdict, record.score, error)


def outcome_of_several(
    path: str,
    sources: Sequence[OpinionSource],
    opinions: Sequence[FileOpinion],
    predictions: Sequence[Predictions | None],
    credentials: ContentCredentials | None = None,
) -> Outcome:
    """Return the outcome of several models: the verdict that they share, or their agreement.

    Without a verdict of any model it has the error of the first one.

    Args:
        path: The file.
        sources: The models.
        opinions: Their opinions, in the same order.
        predictions: Their predictions on the file; None for a plug-in.
        credentials: Content Credentials of the file.

    Example:
        >>> sources = [OpinionSource(label, "plug-in", f"{label}:score") for label in "ab"]
        >>> opinions = [FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.2)]
        >>> outcome = outcome_of_several("a.mp4", sources, opinions, [None, None])
        >>> outcome.verdict, outcome.score, outcome.result["files"][0]["agreement"]
        ('disagree', None, 'disagree')
    """
    file = compare_opinions(path, opinions, credentials)
    note = describe_models(sources)
    result = Opinions(tuple(sources), (file,), tuple(predictions), note=note).to_dict()
    found = [opinion.verdict for opinion in opinions if opinion.verdict not in ("", NO_FACE)]
    if found:
        is_common = file.agreement in (AGREE, SINGLE)
        return Outcome(result, found[0] if is_common else file.agreement)
    first = opinions[0]
    return Outcome(result, first.verdict, error=JobError(first.code or "no_face", file.text))
