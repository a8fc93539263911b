"""Texts for people, from the Jinja2 templates in `templates/`, and Markdown as an HTML page.

Takes the name of a template and its values; returns the text. HTML in the values of `*.html.j2` is
escaped, and in every text invisible characters, such as the direction marks of a file name.
"""

import base64
import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from jdfd_keras.client.metadata import DEMONSTRATION, NOT_SEEN
from jdfd_keras.faces.align import describe_framing
from jdfd_keras.io.console import plural, printable, printable_lines
from jdfd_keras.io.files import write_text_atomically

if TYPE_CHECKING:
    from jdfd_keras.evaluation.metrics import Estimate

GENERATOR = "jdfd-keras predict"  # in pages about verdicts, which are recognized by it
PART_CHARACTERS = 1 << 16
# Code, emphasis and HTML; a link; an entity; an underscore at either end of a word.
_MARKUP = re.compile(r"[\\|<`*]|(?<=\])\(|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def render_template(name: str, **values: object) -> str:
    """Fill a template.

    Args:
        name: File name in `templates/`.
        values: Values by name; one that the template needs and does not get is an error.

    Returns:
        The text, without repeated blank lines, which ends with one newline. Invisible characters
        but line feeds are escaped; a value that may have line feeds needs the filter `printable`.

    Example:
        >>> render_template("page.html.j2", title="R&D", body="<p>text</p>").splitlines()[5]
        '<title>R&amp;D</title>'
    """
    return _tidy(_environment().get_template(name).render(values)).strip("\n") + "\n"


def render_parts(name: str, **values: object) -> Iterator[str]:
    """Yield the text of `render_template` in parts, without the newline at its end.

    Args:
        name: As for `render_template`.
        values: As for `render_template`.

    Example:
        >>> "".join(render_parts("page.html.j2", title="R&D", body="")).splitlines()[5]
        '<title>R&amp;D</title>'
    """
    pending, is_first = "", True
    for part in _environment().get_template(name).generate(values):
        pending += str(part)  # a Markup would escape the rest
        if len(pending) >= PART_CHARACTERS:
            # Line feeds at the end may be repeated by the next part.
            text = pending.rstrip("\n")
            pending = pending[len(text) :]
            yield _tidy(text).lstrip("\n") if is_first else _tidy(text)
            is_first = is_first and not text.strip("\n")
    text = _tidy(pending).rstrip("\n")
    yield text.lstrip("\n") if is_first else text


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", printable_lines(text))


def format_value(value: float | None) -> str:
    """Format a metric with three decimals; None is `undefined`.

    Example:
        >>> format_value(0.91234), format_value(None)
        ('0.912', 'undefined')
    """
    return "undefined" if value is None else f"{value:.3f}"


def format_estimate(estimate: "Estimate") -> str:
    """Format a metric with its interval, if it has one.

    Example:
        >>> from jdfd_keras.evaluation.metrics import Estimate
        >>> format_estimate(Estimate(0.912, 0.88, 0.94))
        '0.912 [0.880, 0.940]'
    """
    text = format_value(estimate.value)
    return text if estimate.low is None else f"{text} [{estimate.low:.3f}, {estimate.high:.3f}]"


def cell(value: object) -> str:
    r"""Return a value on one line with Markdown escaped, so that it is shown literally.

    Example:
        >>> cell("a_b | *c*")
        'a_b \\| \\*c\\*'
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jdfd_keras.reporting"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plural": lambda count, noun: plural(count, noun),
        "cell": cell,  # in Markdown: shown literally
        "metric": format_value,
        "estimate": format_estimate,
        "one_line": lambda text: " ".join(text.split()),
        "printable": printable,
    }
    environment.globals |= {
        "describe_framing": describe_framing,
        "demonstration": DEMONSTRATION,
        "not_seen": NOT_SEEN,
        "generator": GENERATOR,
    }
    return environment


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
        >>> "<h1>A title</h1>" in Path("page.html").read_text()
        True
    """
    from markdown_it import MarkdownIt

    path = Path(path)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    headings = []
    for token, following in pairwise(tokens):
        if (token.type, token.tag) == ("heading_open", "h1"):
            headings.append("".join(child.content for child in following.children or ()))
        for child in token.children or ():
            if child.type == "image":
                child.attrs |= _embed_image(path.parent / str(child.attrs["src"]))
    title = headings[0] if headings else path.stem
    body = parser.renderer.render(tokens, parser.options, {})
    write_text_atomically(path, render_template("page.html.j2", title=title, body=body))


def _embed_image(png: Path) -> dict[str, str | int]:
    """Return the attributes of a PNG, or of the SVG with its name if that is smaller."""
    from PIL import Image

    svg = png.with_suffix(".svg")
    is_svg = svg.is_file() and svg.stat().st_size < png.stat().st_size
    encoded = base64.b64encode((svg if is_svg else png).read_bytes()).decode()
    if is_svg:
        return {"src": f"data:image/svg+xml;base64,{encoded}"}
    with Image.open(png) as image:
        # In CSS pixels, 96 per inch.
        width = round(image.width * 96 / image.info.get("dpi", (96, 96))[0])
    return {"src": f"data:image/png;base64,{encoded}", "width": width}
