"""Templates, and Markdown as one HTML file that opens without a network."""

import base64
import html
import io
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import DictLoader, Environment, UndefinedError
from PIL import Image

import jdfd_keras
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.reporting import templating
from jdfd_keras.reporting.templating import (
    cell,
    format_estimate,
    format_value,
    render_template,
    write_page,
)

# Names that end a line, colour a terminal, begin a formula, or are displayed as another name.
NAMES = {
    "a\u202egpj.mp4": r"a\u202egpj.mp4",
    "b\x1b[31m.mp4": r"b\x1b[31m.mp4",
    "c\u2066d\u2069\u200f\u061c\u200b\ufeff.mp4": r"c\u2066d\u2069\u200f\u061c\u200b\ufeff.mp4",
    "e\x00\x7f\x85\ud800.mp4": r"e\x00\x7f\x85\ud800.mp4",
    "\u202b=1+1\u202c.mp4": r"\u202b=1+1\u202c.mp4",
}
READABLE = ["面.mp4", "анна.mp4", "שלום.mp4", "مرحبا.mp4", "é ñ.mp4", "🙂.mp4", "हिन्दी.mp4"]
NASTY = [
    "a|b",
    "a\\|b",
    "a\\",
    "<script>alert(1)</script>",
    "\\<img src=x onerror=alert(1)>",
    "![x](missing.png)",
    "[x](http://example.org)",
    "<http://example.org>",
    "line\nfeed | and\ttab",
    "&amp; &lt;b&gt; &#60; R&D",
    "*bold* a*b*c **x** 2 * 3",
    "`code` and a `",
    "_x_ __init__.py (_y_) a_b_c foo_ bar_ _",
    "\\*a\\_b_ \\`c\\&lt;",
]


def prepared(name):
    """Return the values of prepared.txt.j2 of an empty dataset."""
    empty = dict.fromkeys(("filtered", "excluded", "warnings", "paths", "faces", "splits"), {})
    lists = dict.fromkeys(("missing", "unrecognized", "without_faces", "shared_sources"), [])
    numbers = {"videos": 0, "unknown_sources": 0}
    values = empty | lists | numbers | {"not_split": "", "directory": name}
    return {"prepared": SimpleNamespace(**values), "excluded": {}}


class Page(HTMLParser):
    """What a browser makes of a page: its tags with attributes, and the text of its cells."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.cells, self._open = [], [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data

    def get(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.9123, 0.88, 0.94), "0.912 [0.880, 0.940]"),
        ((0.5, None, None), "0.500"),
        ((None, None, None), "undefined"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
    ],
)
def test_an_estimate_has_three_decimals(estimate, text):
    assert format_estimate(Estimate(*estimate)) == text


def test_none_is_undefined():
    assert (format_value(None), format_value(0.0)) == ("undefined", "0.000")


def test_a_value_that_a_template_lacks_raises():
    with pytest.raises(UndefinedError, match="body"):
        render_template("page.html.j2", title="t")


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_is_shown_literally(tmp_path, text):
    lines = [f"| before | {cell(text)} |", "| --- | --- |", f"| {cell(text)} | after |"]
    write_page(tmp_path / "page.html", "\n".join(lines))
    page = Page(tmp_path / "page.html")
    shown = " ".join(text.split())
    assert page.cells == ["before", shown, shown, "after"]
    assert not {"script", "img", "a", "em", "strong", "code"} & {tag for tag, _ in page.tags}


@pytest.mark.parametrize("name", [*NAMES, *READABLE])
def test_invisible_characters_are_escaped_in_pages(tmp_path, name):
    lines = [f"# {cell(name)}", "", f"| {cell(name)} | after |", "| --- | --- |"]
    write_page(tmp_path / "page.html", "\n".join(lines))
    page = Page(tmp_path / "page.html")
    shown = NAMES.get(name, name)
    if "\x85" not in name:  # a line break, of which a cell has none
        assert page.cells == [shown, "after"]
        assert f"<title>{shown}</title>" in (tmp_path / "page.html").read_text("utf-8")
    assert all(line.isprintable() for line in (tmp_path / "page.html").read_text().split("\n"))


@pytest.mark.parametrize("name", [*NAMES, *READABLE])
@pytest.mark.parametrize("template", ["page.html.j2", "demo.txt.j2", "demo_training.txt.j2"])
def test_invisible_characters_are_escaped_in_every_template(template, name):
    class Result:
        verdicts, validation_frame_auc, test_frame_auc, test_video_auc = (), 0.5, 0.5, 0.5
        roc = report = model = disclaimer = name
        notes, clips, version = (), (), 1

    text = render_template(template, title=name, body=name, result=Result)
    assert NAMES.get(name, name) in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_line_feed_can_be_escaped_too():
    assert render_template("prepared.txt.j2", **prepared("a\nb")).endswith("dataset: a\\nb\n")


@pytest.mark.parametrize(
    "text", ["0.912 [0.880, 0.940]", "Deep_fakes c23/000_003", "a (b)", "1 %", "R&D & x"]
)
def test_plain_text_is_unchanged(text):
    assert cell(text) == text


def test_html_is_escaped(tmp_path):
    write_page(
        tmp_path / "page.html",
        "# A <b>title</b> & more\n\n<script>alert(1)</script>\n\nin <img src=x> line\n\n"
        "[go](javascript:alert(1))\n",
    )
    page = Page(tmp_path / "page.html")
    assert {tag for tag, _ in page.tags} <= {"html", "meta", "title", "style", "body", "h1", "p"}
    text = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;" in text
    assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in text


def test_the_title_of_the_page_is_its_heading(tmp_path):
    name = "A_b_ *c* | `d` &lt; 1 # \\"
    write_page(tmp_path / "page.html", f"text\n\n## Not this\n\n# {cell(name)} at *last*\n\n# No\n")
    title = re.search("<title>(.*)</title>", (tmp_path / "page.html").read_text())[1]
    assert html.unescape(title) == f"{name} at last"


def make_png(width: int = 200, **info) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 10)).save(file, "PNG", **info)
    return file.getvalue()


PNG = make_png()


@pytest.mark.parametrize(
    ("svg", "kind"),
    [
        (b"s" * (len(PNG) - 1), "svg+xml"),
        (b"s" * len(PNG), "png"),
        (b"s" * (len(PNG) + 1), "png"),
        (None, "png"),
    ],
)
def test_the_smaller_image_is_embedded(tmp_path, svg, kind):
    (tmp_path / "roc.png").write_bytes(PNG)
    if svg:
        (tmp_path / "roc.svg").write_bytes(svg)
    write_page(tmp_path / "page.html", "![a curve](roc.png)\n")
    (image,) = Page(tmp_path / "page.html").get("img")
    head, encoded = image["src"].split(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(encoded) == (svg if kind == "svg+xml" else PNG)
    assert image["alt"] == "a curve"


@pytest.mark.parametrize(("info", "width"), [({}, "200"), ({"dpi": (192, 192)}, "100")])
def test_an_image_has_the_width_of_its_resolution(tmp_path, info, width):
    (tmp_path / "roc.png").write_bytes(make_png(200, **info))
    write_page(tmp_path / "page.html", "![a curve](roc.png)\n")
    assert [image["width"] for image in Page(tmp_path / "page.html").get("img")] == [width]


def test_a_page_is_self_contained(tmp_path):
    (tmp_path / "roc.png").write_bytes(PNG)
    write_page(tmp_path / "page.html", "# Title\n\ntext\n\n![a](roc.png) ![b](roc.png)\n")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert text.startswith("<!doctype html>") and '<meta charset="utf-8">' in text
    page = Page(tmp_path / "page.html")
    assert not page.get("link") and not page.get("script")
    assert re.findall(r"src=\"(.{5})", text) == ["data:", "data:"]


def test_a_page_has_a_policy_that_lets_a_browser_load_nothing(tmp_path):
    write_page(tmp_path / "page.html", "# Title\n")
    page = Page(tmp_path / "page.html")
    policy = page.get("meta")[1]  # before anything that it applies to
    assert policy["http-equiv"] == "Content-Security-Policy"
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_page_of_the_project_has_that_policy():
    folder = resources.files("jdfd_keras.reporting") / "templates"
    pages = {
        path.name: path.read_text("utf-8") for path in folder.iterdir() if ".html" in path.name
    }
    assert "Content-Security-Policy" in pages.pop("base.html.j2")
    del pages["verdict_macros.html.j2"]  # parts of pages
    del pages["app.html.j2"], pages["app_login.html.j2"]  # a server sends their policy as a header
    assert len(pages) >= 2
    for text in pages.values():
        assert '{% extends "base.html.j2" %}' in text
    package = Path(jdfd_keras.__file__).parent
    others = [path for path in package.rglob("*.py") if "<html" in path.read_text("utf-8").lower()]
    assert others == []


def test_a_missing_image_raises_and_writes_no_page(tmp_path):
    with pytest.raises(OSError, match=r"roc\.png"):
        write_page(tmp_path / "page.html", "![a curve](roc.png)\n")
    assert not (tmp_path / "page.html").exists()


def test_a_page_without_heading_has_the_file_name_as_title(tmp_path):
    write_page(tmp_path / "audit.html", "text, é\n")
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "<title>audit</title>" in text and "é" in text


@pytest.mark.parametrize("characters", [1, 7, 1 << 16])
def test_the_parts_of_a_template_are_its_text(monkeypatch, characters):
    monkeypatch.setattr(templating, "PART_CHARACTERS", characters)
    lines = "\n\n".join(
        ["", "", "{% for x in xs %}\n\n\n{{ x }}\n\n\n{% endfor %}", "", "end", "", ""]
    )
    environment = Environment(
        loader=DictLoader({"t": lines}), trim_blocks=True, keep_trailing_newline=True
    )
    monkeypatch.setattr(templating, "_environment", lambda: environment)
    values = {"xs": ["a", "\n\n\nb", "\u202ec", "\n", "d" * 20]}
    whole = templating.render_template("t", **values)
    assert "".join(templating.render_parts("t", **values)) == whole.removesuffix("\n")
    assert "\\u202ec" in whole and "\n\n\n" not in whole
