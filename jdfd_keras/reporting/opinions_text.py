"""Verdicts of several models for a terminal: agreement and each verdict, disagreement first.

Takes Opinions; the words are in the template.
"""

from functools import partial
from pathlib import Path

from jdfd_keras.inference.finding import describe_thresholds
from jdfd_keras.inference.verdict import verdict_text
from jdfd_keras.prediction.opinions import Opinions, count_agreements
from jdfd_keras.reporting.opinions_report import (
    describe_agreement,
    describe_together,
    list_cautions,
    show_files,
    show_models,
)
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.reporting.verdict_text import count_unchecked


def summarize_opinions(opinions: Opinions, page: str | Path | None = None) -> str:
    """Format opinions as lines for a terminal: agreement in words, and each verdict with its score.

    Files on which the models disagree come first. The last line counts the files by agreement.

    Args:
        opinions: Opinions of `predict_opinions`.
        page: Page about them, to be named.

    Example:
        >>> from jdfd_keras.prediction.opinions import FileOpinion, OpinionSource, compare_opinions
        >>> found = FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.1)
        >>> models = tuple(OpinionSource(label, "plug-in", f"{label}:judge") for label in "ab")
        >>> compared = compare_opinions("clip.mp4", found)
        >>> print(summarize_opinions(Opinions(models, (compared,), (None, None))))
        clip.mp4: 2 of 2 models have a verdict, and they disagree: a: fake; b: no evidence of ...
          a: fake, score 0.900 (fake from 0.5)
          b: no evidence of manipulation, score 0.100 (fake from 0.5)
        model a: plug-in a:judge
        model b: plug-in b:judge
        warning: a and b are plug-ins: ...
        note: There is no combined score...
    """
    unlinked = [None for _ in opinions.models]
    files = show_files(opinions, unlinked, Path())
    notes = [note for known in opinions.predictions if known for note in known.provenance.notes]
    text = render_template(
        "opinions.txt.j2",
        opinions=opinions,
        files=files,
        models=show_models(opinions, unlinked, Path()),
        cautions=list_cautions(opinions, files),
        notes=list(dict.fromkeys(notes)),
        counts=count_agreements(opinions.files),
        unchecked=count_unchecked(shown.credentials for shown in files),
        page=str(page or ""),
        describe_agreement=partial(describe_agreement, num_models=len(opinions.models)),
        together=describe_together(opinions),
        describe_thresholds=describe_thresholds,
        verdict_text=verdict_text,
    )
    return text.rstrip("\n")
