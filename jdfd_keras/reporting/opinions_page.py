"""Verdicts of several models for people: one page that compares them, and the pages of each model.

Takes Opinions. The pages of a model are those of `write_report`, in a folder beside the comparison.
The words are in the template.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jdfd_keras.inference.finding import describe_thresholds
from jdfd_keras.inference.verdict import verdict_text
from jdfd_keras.io.console import plural, printable
from jdfd_keras.io.files import check_no_result
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.opinions import Opinions
from jdfd_keras.reporting.opinions_report import (
    ORDER,
    describe_agreement,
    describe_together,
    list_cautions,
    show_files,
    show_models,
)
from jdfd_keras.reporting.page_files import (
    PageFacts,
    describe_file_claims,
    describe_page,
    page_style,
    remove_pages,
    resolve_report,
    safe_names,
    show_time,
    write_page_file,
)
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.reporting.verdict_page import write_report

PAGE = "index"  # of one model, in the folder of that model


def write_opinions(
    opinions: Opinions,
    path: str | Path,
    *,
    overwrite: bool = False,
    limits: LimitOptions | None = None,
    sources: Mapping[str, Path] | None = None,
) -> Path:
    """Write a page that compares verdicts of several models, and a folder of their pages beside it.

    Args:
        opinions: Opinions of `predict_opinions`, with `explain=True` to show the top faces and
            their class-activation maps on the pages of the models.
        path: The .html file; a folder, in which the page is `index.html`; or a .pdf file, which
            Chromium prints. The pages of the models are in a folder named after it.
        overwrite: Replace an existing page.
        limits: Limits of each file; the defaults if not given.
        sources: Where files are now, by their path in the verdict, if that does not lead to them.

    Returns:
        Path of the page.

    Raises:
        OSError: If the page cannot be written, or exists and must not be replaced, or a PDF is
            requested without Chromium.

    Example:
        >>> from jdfd_keras.prediction.opinions import FileOpinion, OpinionSource, compare_opinions
        >>> found = FileOpinion("a", "fake", 0.9), FileOpinion("b", "no_evidence", 0.1)
        >>> models = tuple(OpinionSource(label, "plug-in", f"{label}:judge") for label in "ab")
        >>> compared = compare_opinions("clip.mp4", found)
        >>> write_opinions(Opinions(models, (compared,), (None, None)), "opinions.html")
        PosixPath('opinions.html')
        >>> "The models disagree" in Path("opinions.html").read_text()
        True
    """
    path = resolve_report(path)
    folder = path.with_name(f"{path.stem}_files")
    check_no_result(path, folder, overwrite=overwrite)
    path.parent.mkdir(exist_ok=True)
    _remove_pages(folder, path.suffix)
    page = describe_page(path)
    # Chromium would make an absolute link of it in a PDF.
    comparison = "" if page.is_print else f"../../{quote(path.name)}"
    pages: list[Path | None] = []
    names = safe_names(model.label for model in opinions.models)
    for predictions, name in zip(opinions.predictions, names, strict=True):
        pages.append(None)
        if predictions is not None:
            folder.mkdir(exist_ok=True)
            target = folder / name / f"{PAGE}{path.suffix}"
            pages[-1] = write_report(
                predictions,
                target,
                overwrite=overwrite,
                limits=limits,
                sources=sources,
                comparison=comparison,
            )
    write_page_file(path, _render(opinions, pages, page, path.parent))
    return path


def _remove_pages(folder: Path, suffix: str) -> None:
    """Delete the pages of an earlier report, which is replaced; its models may have been others."""
    remove_pages(folder, suffix)
    for below in ("*", f"*/{PAGE}_files"):
        for found in folder.glob(below):
            if found.is_dir() and not found.is_symlink():
                remove_pages(found, suffix)


def _render(opinions: Opinions, pages: Sequence[Path | None], page: PageFacts, root: Path) -> str:
    files = show_files(opinions, [None for _ in pages] if page.is_print else pages, root)
    footer = plural(len(files), "file")
    if len(files) == 1:
        digests = " ".join(f"SHA-256 {digest}" for digest in files[0].digests)
        footer = f"{printable(files[0].name)}\n{digests}".rstrip()
    stated = [known.provenance for known in opinions.predictions if known]
    return render_template(
        "opinions.html.j2",
        opinions=opinions,
        files=files,
        groups=[
            (agreement, [shown for shown in files if shown.agreement == agreement])
            for agreement in ORDER
        ],
        models=show_models(opinions, pages, root),
        cautions=list_cautions(opinions, files),
        case=opinions.case,
        examiner=opinions.examiner,
        claims=describe_file_claims((shown.name, shown.credentials) for shown in files),
        origin=stated[0] if stated else None,
        page=page,
        style=page_style(footer),
        describe_agreement=partial(describe_agreement, num_models=len(opinions.models)),
        together=describe_together(opinions),
        describe_thresholds=describe_thresholds,
        show_time=show_time,
        verdict_text=verdict_text,
    )
