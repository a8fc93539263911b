"""What a page shows of several models' opinions: files in order, texts, links, and cautions.

Takes Opinions and where the pages of the models are; returns what the template shows. The words
that do not depend on the opinions are in the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2

from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.inference.finding import describe_likelihood
from jdfd_keras.inference.verdict import NO_FACE, SUSPICION, Verdict
from jdfd_keras.io.console import plural
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.opinions import (
    AGREE,
    DISAGREE,
    NONE,
    PARTIAL,
    PLUGIN,
    SINGLE,
    FileOpinion,
    FileOpinions,
    Opinions,
    OpinionSource,
    same_weights,
    shorten_reason,
)
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.reporting.file_report import embed, file_name
from jdfd_keras.reporting.page_files import name_pages, needs_overview

# In the order of a page: what needs a decision comes first.
ORDER = (DISAGREE, PARTIAL, SINGLE, NONE, AGREE)
AGREEMENT_TEXTS = {
    AGREE: "the models agree",
    PARTIAL: "the models agree in part",
    DISAGREE: "the models disagree",
    SINGLE: "only one model has a verdict",
    NONE: "no model has a verdict",
}
FACE_WIDTH = 112  # twice its width on the page


@dataclass(frozen=True)
class ShownOpinion:
    """Opinion of one model on one file."""

    source: OpinionSource
    opinion: FileOpinion
    # Thresholds for the people of this file.
    uncertain_from: float
    uncertain_to: float
    note: str  # what the verdict rests on besides the score, or why there is none
    link: str  # relative URL of the page with the evidence; "" if there is none


@dataclass(frozen=True)
class ShownFile:
    """One file with the opinions of all models."""

    path: str
    name: str
    agreement: str
    text: str
    opinions: tuple[ShownOpinion, ...]
    records: tuple[Verdict | FailedFile, ...]  # of the models that have predictions
    face: str = ""  # data URI of its most suspicious face by the first model that shows one
    credentials: ContentCredentials | None = None

    @property
    def folder(self) -> str:
        """The path without the name; "" if there is nothing else."""
        return self.path.removesuffix(self.name)

    @property
    def verdict(self) -> str:
        """The most suspicious verdict; "" if there is none."""
        found = [shown.opinion.verdict for shown in self.opinions if shown.opinion.verdict]
        return max(found, key=SUSPICION.__getitem__, default="")

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of the analysed bytes: several if the file was changed between the models."""
        return tuple(dict.fromkeys(record.sha256 for record in self.records if record.sha256))

    @property
    def file_bytes(self) -> int | None:
        """Size of the file; None if it was not recorded."""
        return next((record.file_bytes for record in self.records if record.file_bytes), None)

    @property
    def analysed_at(self) -> str:
        """Time of the first verdict; "" if it was not recorded."""
        return min(
            (record.analysed_at for record in self.records if record.analysed_at), default=""
        )


@dataclass(frozen=True)
class ShownModel:
    """One model."""

    source: OpinionSource
    predictions: Predictions | None
    num_verdicts: int
    thresholds: str  # where its thresholds are from
    link: str  # relative URL of its page; "" if it has none
    page_name: str


def describe_agreement(agreement: str, num_models: int = 2) -> str:
    """Return an agreement in words.

    Args:
        agreement: One of AGREEMENTS.
        num_models: Number of models that were asked.

    Example:
        >>> describe_agreement("partial"), describe_agreement("single", 1)
        ('the models agree in part', 'one model has a verdict')
    """
    if num_models == 1 and agreement == SINGLE:
        return "one model has a verdict"
    return AGREEMENT_TEXTS[agreement]


def order_files(files: Sequence[FileOpinions]) -> list[FileOpinions]:
    """Return files with those on which models disagree first, then by the most suspicious verdict.

    Example:
        >>> from jdfd_keras.prediction.opinions import compare_opinions
        >>> fake, clean = FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.1)
        >>> both = compare_opinions("1.mp4", [fake, fake]), compare_opinions("2.mp4", [fake, clean])
        >>> [file.path for file in order_files(both)]
        ['2.mp4', '1.mp4']
    """

    def key(file: FileOpinions) -> tuple[int, int]:
        suspicions = [SUSPICION[opinion.verdict] for opinion in file.opinions if opinion.verdict]
        return ORDER.index(file.agreement), -max(suspicions, default=min(SUSPICION.values()) - 1)

    return sorted(files, key=key)


def show_files(opinions: Opinions, pages: Sequence[Path | None], root: Path) -> list[ShownFile]:
    """Return what a page shows of each file, in the order of `order_files`.

    Args:
        opinions: The opinions.
        pages: Page of each model; None if it has none, or if no page can be opened from this one.
        root: Folder of the comparison.

    Example:
        >>> from jdfd_keras.prediction.opinions import compare_opinions
        >>> source = OpinionSource("a", "plug-in", "judges:a")
        >>> compared = compare_opinions("clips/1.mp4", [FileOpinion("a", "fake", 0.9)])
        >>> (shown,) = show_files(Opinions((source,), (compared,), (None,)), [None], Path())
        >>> shown.name, shown.verdict, shown.opinions[0].uncertain_to
        ('1.mp4', 'fake', 0.5)
    """
    by_path = [
        {record.path: record for record in predictions.records} if predictions else {}
        for predictions in opinions.predictions
    ]
    links = [
        _link_files(predictions, page, root) if predictions and page else {}
        for predictions, page in zip(opinions.predictions, pages, strict=True)
    ]
    shown = []
    for file in order_files(opinions.files):
        # A name that is not UTF-8 is escaped in predictions.
        path = file.path.encode("utf-8", "backslashreplace").decode()
        found = [records.get(path) for records in by_path]
        records = tuple(record for record in found if record)
        shown.append(
            ShownFile(
                path=path,
                name=file_name(path),
                agreement=file.agreement,
                text=file.text,
                opinions=tuple(
                    _show_opinion(source, opinion, record, urls.get(path, ""))
                    for source, opinion, record, urls in zip(
                        opinions.models, file.opinions, found, links, strict=True
                    )
                ),
                records=records,
                face=_draw_face(opinions, path),
                credentials=file.credentials,
            )
        )
    return shown


def show_models(opinions: Opinions, pages: Sequence[Path | None], root: Path) -> list[ShownModel]:
    """Return what a page shows of each model; arguments are those of `show_files`.

    Example:
        >>> source = OpinionSource("a", "plug-in", "judges:a")
        >>> show_models(Opinions((source,), (), (None,)), [None], Path())[0].num_verdicts
        0
    """
    return [
        ShownModel(
            source=source,
            predictions=predictions,
            num_verdicts=sum(bool(file.opinions[index].verdict) for file in opinions.files),
            thresholds=_describe_source(source, predictions),
            link=quote(page.relative_to(root).as_posix()) if page else "",
            page_name=page.relative_to(root).as_posix() if page else "",
        )
        for index, (source, predictions, page) in enumerate(
            zip(opinions.models, opinions.predictions, pages, strict=True)
        )
    ]


def describe_together(opinions: Opinions) -> str:
    """Return the note of opinions without what is among the cautions.

    Example:
        >>> source = OpinionSource("a", "model", "a")
        >>> describe_together(Opinions((source,), (), (None,), note="No mean."))
        'No mean.'
    """
    return opinions.note.removesuffix(same_weights(opinions.models)).rstrip()


def list_cautions(opinions: Opinions, files: Sequence[ShownFile]) -> list[str]:
    """Return sentences that a reader must not miss.

    Example:
        >>> source = OpinionSource("a", "model", "a", is_calibrated=True, error="no such model")
        >>> list_cautions(Opinions((source,), (), (None,)), [])
        ['a gave no verdict on any file: no such model.']
    """
    cautions = [
        f"{source.label} gave no verdict on any file: {source.error.rstrip('.')}."
        for source in opinions.models
        if source.error
    ]
    if repeated := same_weights(opinions.models):
        cautions.append(repeated)
    asked = list(zip(opinions.models, opinions.predictions, strict=True))
    uncalibrated = [
        source.label
        for source, predictions in asked
        if predictions and predictions.provenance.calibration is None
    ]
    if uncalibrated:
        is_one = len(uncalibrated) == 1
        are, their = ("is", "its") if is_one else ("are", "their")
        cautions.append(
            f"{_join(uncalibrated)} {are} not calibrated: {their} scores are not probabilities, "
            f"and {their} error rates are unknown."
        )
    plugins = [source.label for source, _ in asked if source.kind == PLUGIN and not source.error]
    if plugins:
        is_one = len(plugins) == 1
        are, examine = (
            ("is a plug-in", "it examines") if is_one else ("are plug-ins", "they examine")
        )
        cautions.append(
            f"{_join(plugins)} {are}: this program does not know what {examine}, or how often "
            f"{'it errs' if is_one else 'they err'}."
        )
    for source, predictions in asked:
        if predictions and predictions.provenance.framing:
            cautions.append(f"{source.label}: {predictions.provenance.framing}")
    if any(
        predictions and predictions.provenance.thresholds == "threshold"
        for predictions in opinions.predictions
    ):
        cautions.append("the threshold was chosen by the user, not by validation.")
    if changed := [shown.name for shown in files if len(shown.digests) > 1]:
        cautions.append(
            f"{plural(len(changed), 'file')} changed while the models were asked, so that they "
            f"judged different bytes: {', '.join(changed)}."
        )
    return cautions


def _show_opinion(
    source: OpinionSource, opinion: FileOpinion, record: Verdict | FailedFile | None, link: str
) -> ShownOpinion:
    thresholds, note = source, shorten_reason(opinion.error)
    if isinstance(record, Verdict):
        thresholds = record
        note = "; ".join(record.reasons) or describe_likelihood(record.likelihood)
        if record.verdict == NO_FACE:
            note = f"none in {plural(record.num_frames, 'sampled frame')}"
    return ShownOpinion(
        source=source,
        opinion=opinion,
        uncertain_from=thresholds.uncertain_from,
        uncertain_to=thresholds.uncertain_to,
        note=note,
        link=link if opinion.verdict else "",
    )


def _describe_source(source: OpinionSource, predictions: Predictions | None) -> str:
    if source.is_calibrated:
        is_plugin = source.kind == PLUGIN
        return "as the plug-in states" if is_plugin else "calibrated, for files with one person"
    if predictions and predictions.provenance.thresholds == "threshold":
        return "one threshold, as requested"
    return "not stated by the plug-in" if source.kind == PLUGIN else "not calibrated"


def _link_files(predictions: Predictions, page: Path, root: Path) -> dict[str, str]:
    """Return the relative URL of the page that shows each file, by its path."""
    own = quote(page.relative_to(root).as_posix())
    links = dict.fromkeys(predictions.paths, own)
    if needs_overview(predictions):
        folder = page.with_name(f"{page.stem}_files").relative_to(root).as_posix()
        names = name_pages(predictions, page.suffix)
        links |= {path: quote(f"{folder}/{name}") for path, name in names.items()}
    return links


def _draw_face(opinions: Opinions, path: str) -> str:
    for predictions in filter(None, opinions.predictions):
        top_faces = predictions.top_faces.get(path)
        if top_faces is not None and len(top_faces.crops):
            size = (FACE_WIDTH, FACE_WIDTH)
            small = cv2.resize(top_faces.crops[0], size, interpolation=cv2.INTER_AREA)
            jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
            return embed(jpeg.tobytes(), "jpeg")
    return ""


def _join(labels: Sequence[str]) -> str:
    *first, last = labels
    return f"{', '.join(first)} and {last}" if first else last
