"""The figures of README and docs/: each is shown, is small, and has a source and a licence."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "figures.md").read_text(encoding="utf-8")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg")
FIGURES = sorted(path.name for path in DOCS.iterdir() if path.suffix in SUFFIXES)
MAX_BYTES = 400_000
LINK = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<path>[^)\s]+)[^)]*\)|<img [^>]*>")


def find_links():
    """Return alternative text and path of each image that a page shows."""
    found = []
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            text, path = match["text"], match["path"]
            if path is None:
                (path,) = re.findall(r'src="([^"]+)"', match[0])
                (text,) = re.findall(r'alt="([^"]+)"', match[0])
            found.append((page, text, (page.parent / path).resolve()))
    return found


def test_each_figure_has_its_source_and_no_other_is_listed():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    listed = re.findall(r"`([\w.-]+)`", " ".join(rows))
    assert sorted(listed) == sorted([*FIGURES, "tutorial.ipynb"])
    assert "public domain" in PAGE


def test_each_shown_figure_exists_is_listed_and_is_described():
    links = find_links()
    assert len(links) >= 6
    for page, text, path in links:
        assert path.is_file(), f"{page.name}: {path}"
        assert path.parent == DOCS and path.name in FIGURES
        assert len(text) > 20, f"{page.name}: describe {path.name} for people who do not see it"
    assert {path.name for _, _, path in links} == set(FIGURES), "a figure is shown nowhere"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_small_images_of_their_suffix(name):
    path = DOCS / name
    assert path.stat().st_size < MAX_BYTES
    with Image.open(path) as image:
        assert image.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        assert 800 <= image.width <= 1400
        assert not image.getexif() and "comment" not in image.info


@pytest.mark.slow
def test_the_videos_of_the_figures_are_written(tmp_path, monkeypatch):
    from jdfd_keras.faces.decode import open_media

    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    monkeypatch.setattr(figures, "NUM_FRAMES", 2)
    monkeypatch.setattr(figures, "FIRST_FAKE", 1)
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path)])
    figures.main()
    widths = {"statement": 640, "announcement": 640, "press_conference": 640}
    for name, width in (widths | {"interview": 1280, "suspect": 1280}).items():
        with open_media(tmp_path / f"{name}.mp4") as media:
            shapes = [frame.pixels.shape for frame in media.read(2)]
        assert shapes == [(480, width, 3)] * 2
    assert {path.name for path in tmp_path.iterdir()} >= {"portrait.jpg", "wall.jpg"}
    assert f"`{Path(figures.__file__).relative_to(ROOT)}" in PAGE.replace("python ", "")
