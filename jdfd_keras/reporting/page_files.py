"""Files of pages: where they are, their names, their style, and writing them as HTML or PDF.

Takes the text of a page, which a template has made.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

import jdfd_keras
from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.reporting.file_report import file_name
from jdfd_keras.reporting.pdf import find_chromium, print_pdf
from jdfd_keras.reporting.templating import GENERATOR, render_template

SUFFIXES = (".html", ".htm", ".pdf")
INDEX = "index.html"  # in a folder that is given instead of a file
MAX_NAME = 160  # bytes of the name of a page, to which others are added
MARK_BYTES = 8192  # at the beginning of a page, which has its mark there


@dataclass(frozen=True)
class PageFacts:
    """Facts about a page."""

    written: str
    version: str
    is_print: bool  # for a PDF, in which nothing moves
    comparison: str = ""  # relative URL of a page that compares several models


def resolve_report(path: str | Path) -> Path:
    """Return the file that a report is written to: `index.html` if it is given as a folder.

    Raises:
        ValueError: If the suffix is not one of SUFFIXES.
        FileNotFoundError: If it is a PDF, and there is no Chromium.

    Example:
        >>> resolve_report("case 7"), resolve_report("clip.html")
        (PosixPath('case 7/index.html'), PosixPath('clip.html'))
    """
    path = Path(path)
    if path.is_dir() or not path.suffix:
        return path / INDEX
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"Expected a report named {', '.join(SUFFIXES)}, or a folder; got {path}. Try "
            f"{path.with_suffix('.html').name}."
        )
    if path.suffix.lower() == ".pdf":
        find_chromium()
    return path


def needs_overview(predictions: Predictions) -> bool:
    """Return whether a report has an overview, and the pages of files in a folder beside it.

    Example:
        >>> from jdfd_keras import predict_files
        >>> needs_overview(predict_files(["video.mp4"], model="run"))
        False
    """
    return len(predictions.paths) > 1 or not predictions.files


def name_pages(predictions: Predictions, suffix: str) -> dict[str, str]:
    """Return the name of the page of each file beside an overview, by its path; {} without one.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["video.mp4", "face.png"], model="run")
        >>> sorted(name_pages(predictions, ".html").values())
        ['face.png.html', 'video.mp4.html']
    """
    if not needs_overview(predictions):
        return {}
    paths = [verdict.path for verdict in predictions.most_suspicious]
    return dict(zip(paths, safe_names(map(file_name, paths), suffix), strict=True))


def safe_names(names: Iterable[str], suffix: str = "") -> list[str]:
    """Return file names for texts, of which no two differ by case alone.

    Example:
        >>> safe_names(["a b/../c", "A_b_.._C", ".."], ".html")
        ['a_b_.._c.html', 'A_b_.._C-2.html', 'file.html']
    """
    safe: list[str] = []
    used: set[str] = set()
    for name in names:
        stem = re.sub(r"[^\w.-]+", "_", name).lstrip(".")
        stem = stem.encode()[:MAX_NAME].decode(errors="ignore") or "file"
        found, number = f"{stem}{suffix}", 2
        while found.casefold() in used:
            found, number = f"{stem}-{number}{suffix}", number + 1
        used.add(found.casefold())
        safe.append(found)
    return safe


def describe_page(path: Path, comparison: str = "") -> PageFacts:
    """Return the facts about a page that is written now.

    Example:
        >>> describe_page(Path("verdict.pdf")).is_print
        True
    """
    written = datetime.now().astimezone().isoformat(" ", "seconds")
    is_print = path.suffix.lower() == ".pdf"
    return PageFacts(written, jdfd_keras.__version__, is_print, "" if is_print else comparison)


def remove_pages(folder: Path, suffix: str) -> None:
    """Delete the pages of an earlier report in a folder, and their videos, but no other file.

    Args:
        folder: The folder, which need not exist.
        suffix: Suffix of the pages, such as `.html`.

    Example:
        >>> Path("pages").mkdir()
        >>> Path("pages/own.html").write_text("<!doctype html><title>mine</title>")
        34
        >>> remove_pages(Path("pages"), ".html")
        >>> Path("pages/own.html").exists()
        True
    """
    marks = (f'<meta name="generator" content="{GENERATOR}">', f"/Creator ({GENERATOR})")
    for page in sorted(folder.glob(f"*{suffix}")):
        if not page.is_file():
            continue
        with open(page, "rb") as file:
            begin = file.read(MARK_BYTES)
        if any(mark.encode() in begin for mark in marks):
            player_beside(page).unlink(missing_ok=True)
            page.unlink()


def player_beside(page: Path) -> Path:
    """Return the path of a video that is too large to be in its page.

    Example:
        >>> player_beside(Path("pages/clip.mp4.html"))
        PosixPath('pages/clip.mp4-player.mp4')
    """
    # Not the name of the page alone, which is often that of the analysed video.
    return page.with_name(f"{page.stem}-player.mp4")


def page_style(footer: str) -> Markup:
    """Return the style of a page, with lines at the foot of each printed one.

    Example:
        >>> "clip.mp4" in page_style("clip.mp4")
        True
    """
    # Every character that is not plain is escaped, so that a file name cannot end the text.
    escaped = re.sub(r"[^A-Za-z0-9.-]", lambda match: f"\\{ord(match[0]):06x}", footer)
    return Markup(render_template("verdict_style.css.j2", footer=escaped))


def describe_file_claims(files: Iterable[tuple[str, ContentCredentials | None]]) -> list[str]:
    """Return the AI claims of several files in words, each with the name of its file.

    Args:
        files: Names, and the credentials of each.

    Example:
        >>> describe_file_claims([("a.mp4", None), ("b.mp4", ContentCredentials("none", ""))])
        []
    """
    return [
        f"{name}: {text}"
        for name, credentials in files
        if credentials
        for text in credentials.describe_claims()
    ]


def show_time(iso: str) -> str:
    """Return a stored time as date and time in UTC; "" if it was not recorded.

    Example:
        >>> show_time("2026-11-29T12:00:00+00:00")
        '29 November 2026, 12:00 UTC'
    """
    if not iso:
        return ""
    with_zone = datetime.fromisoformat(iso)
    return f"{with_zone:%d %B %Y, %H:%M} {with_zone.tzname() or ''}".strip()


def write_page_file(path: Path, page: str) -> None:
    """Write a page as HTML, or as PDF by its suffix.

    Example:
        >>> write_page_file(Path("page.html"), "<!doctype html>")
        >>> Path("page.html").read_text()
        '<!doctype html>'
    """
    if path.suffix.lower() != ".pdf":
        write_text_atomically(path, page)
        return
    with TemporaryFolder() as folder:
        html = Path(folder, INDEX)
        html.write_text(page, encoding="utf-8")
        print_pdf(html, path)
