"""Markdown tables, and Markdown as one self-contained HTML page."""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from jdfd_keras.io.files import write_text_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem;
     border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { background: #f3f3f3; text-align: left; overflow-wrap: normal; }
td { max-width: 25rem; }
td[style*="right"] { white-space: nowrap; }
:is(td:first-child, td:last-child):not([style*="right"]) {
     min-width: 7.5rem; max-width: none; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; vertical-align: top; }
p:has(> img ~ img) > img { max-width: 48%; }
code { background: #f3f3f3; padding: 0 .2rem; }
@media print { body { margin: 0; } h2 { break-after: avoid; } img, tr { break-inside: avoid; } }
"""
# Code, emphasis and HTML; a link; an entity; an underscore at either end of a word.
MARKUP = re.compile(r"[\\|<`*]|(?<=\])\(|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


class Marked(str):
    """Text with Markdown, such as `**bold**`, that `cell` does not escape."""


def table(header: Sequence, rows: Sequence[Sequence], align: str = "") -> str:
    """Return a Markdown table.

    Args:
        header: Title of each column.
        rows: As many values per row, formatted by `cell`.
        align: `l` or `r` for each column; all left by default.

    Example:
        >>> print(table(("name", "AUC"), [("a_b", 0.5)], align="lr"))
        | name | AUC |
        | :--- | ---: |
        | a_b | 0.5 |
    """
    rules = [":---" if side == "l" else "---:" for side in align or "l" * len(header)]
    lines = [header, rules, *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value) -> str:
    """Return a value on one line with Markdown escaped, so that it is shown literally."""
    if isinstance(value, Marked):
        return value
    return MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))


def write_page(path: str | Path, text: str) -> None:
    """Write Markdown as one self-contained HTML file with embedded images.

    Args:
        path: The file, replaced if it exists.
        text: Markdown; HTML in it is escaped. Images are relative to `path`; of a PNG and an SVG
            with the same name the smaller file is embedded.

    Raises:
        OSError: If an image does not exist, or the file cannot be written.

    Example:
        >>> write_page("page.html", "# A title")
    """
    from markdown_it import MarkdownIt

    path = Path(path)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                image = _choose_image(path.parent / child.attrs["src"])
                encoded = base64.b64encode(image.read_bytes()).decode()
                kind = "svg+xml" if image.suffix == ".svg" else "png"
                child.attrs["src"] = f"data:image/{kind};base64,{encoded}"
                if kind == "png":
                    child.attrs["width"] = _measure_width(image)
    body = parser.renderer.render(tokens, parser.options, {})
    title = next(
        (
            "".join(child.content for child in tokens[index + 1].children)
            for index, token in enumerate(tokens)
            if (token.type, token.tag) == ("heading_open", "h1")
        ),
        path.stem,
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n{body}</html>\n"
    )
    write_text_atomically(path, page)


def _measure_width(path: Path) -> int:
    """Return the width in CSS pixels, 96 per inch."""
    from PIL import Image

    with Image.open(path) as image:
        return round(image.width * 96 / image.info.get("dpi", (96, 96))[0])


def _choose_image(png: Path) -> Path:
    svg = png.with_suffix(".svg")
    return svg if svg.is_file() and svg.stat().st_size < png.stat().st_size else png
