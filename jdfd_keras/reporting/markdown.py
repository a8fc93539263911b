"""Tables in Markdown for every report, and Markdown as one page that opens anywhere."""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

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
# Code, emphasis and HTML; a link; an entity; a line that is at an end of a word.
MARKUP = re.compile(r"[\\|<`*]|(?<=\])\(|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


class Marked(str):
    """Text whose marks are meant, such as `**bold**`; a cell takes it as it is."""


def table(header: Sequence, rows: Sequence[Sequence], align: str = "") -> str:
    """Write a table.

    Args:
        header: A word for each column.
        rows: As many values each; written as they print, on one line; Marked ones as they are.
        align: `l` or `r` for each column; all to the left if not given.
    """
    rules = [":---" if side == "l" else "---:" for side in align or "l" * len(header)]
    lines = [header, rules, *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value) -> str:
    """Write a value so that it neither ends a line nor a cell, and shows as it was typed."""
    if isinstance(value, Marked):
        return value
    return MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))


def write_page(path: str | Path, text: str) -> None:
    """Write Markdown as one HTML file that needs no network: pictures are inside it.

    Args:
        path: The file, replaced if it is there.
        text: Markdown; HTML in it is shown, not obeyed. Pictures lie beside `path`; of a PNG and
            an SVG of one name the smaller file is taken.

    Raises:
        OSError: If a picture is not there.
    """
    from markdown_it import MarkdownIt

    path = Path(path)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                picture = _choose_picture(path.parent / child.attrs["src"])
                encoded = base64.b64encode(picture.read_bytes()).decode()
                kind = "svg+xml" if picture.suffix == ".svg" else "png"
                child.attrs["src"] = f"data:image/{kind};base64,{encoded}"
                if kind == "png":
                    child.attrs["width"] = _measure_width(picture)
    body = parser.renderer.render(tokens, parser.options, {})
    title = next(
        (
            "".join(child.content for child in tokens[place + 1].children)
            for place, token in enumerate(tokens)
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
    path.write_text(page, encoding="utf-8")


def _measure_width(picture: Path) -> int:
    """Give the width in CSS pixels, 96 to the inch."""
    from PIL import Image

    with Image.open(picture) as image:
        return round(image.width * 96 / image.info.get("dpi", (96, 96))[0])


def _choose_picture(picture: Path) -> Path:
    drawn = picture.with_suffix(".svg")
    if drawn.is_file() and drawn.stat().st_size < picture.stat().st_size:
        return drawn
    return picture
