"""The names and phrases that docs/language.md excludes have not come back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "language.md"
CODE = [
    path for room in ("jdfd_keras", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")
]
TEXTS = [
    *CODE,
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *(
        path
        for room in ("serving", "benchmarks", "saved_models", "docs")
        for path in (ROOT / room).glob("*.md")
    ),
    *(ROOT / "serving").rglob("*.y*ml"),
    *(ROOT / "jdfd_keras").rglob("*.j2"),
]


def first_column(heading: str) -> list[str]:
    """Read the first column of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")][
        2:
    ]


OLD_NAMES = first_column("Names that must not come back")
NAMES = {name for cell in OLD_NAMES for name in re.findall(r"`(\w+)`", cell)}
OLD_PHRASES = first_column("Phrases that must not come back")
PHRASES = [phrase for cell in OLD_PHRASES for phrase in cell.split(", ")]


def names_in(source: str) -> set[str]:
    """Return the names that a module defines; a name of a library may be any."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.arg():
                names.add(node.arg)
            case ast.alias(asname=str()):
                names.add(node.asname)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(ctx=ast.Store()):
                names.add(node.attr)
    return names


def test_the_page_has_both_lists():
    assert {"claim_directory", "Sighting", "picture"} <= NAMES
    assert {"gone on with", "what `prepare` made"} <= set(PHRASES)
    source = "import a as told\nclass Look: pass\ndef f(borders): x.decides = tf.gather(a)"
    assert names_in(source) == {"told", "Look", "f", "borders", "decides"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_comes_back(path):
    assert names_in(path.read_text(encoding="utf-8")) & NAMES == set()


def test_no_file_name_comes_back():
    old = {"claims", "take", "taking", "assemble", "face_list", "material", "gather", "identity"}
    old |= {"scorers", "from_scores", "groups", "sentences", "page", "section", "notes", "stretch"}
    old |= {"basis", "places", "contract", "description", "calls", "run", "connection", "wire"}
    old |= {"launch", "tensorflow_model_server", "utils", "common", "base", "helpers"}
    assert {path.stem for path in (ROOT / "jdfd_keras").rglob("*.py")} & old == set()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_phrase_comes_back(path):
    if path in (PAGE, Path(__file__)):
        pytest.skip("lists the phrases")
    text = re.sub(r"[\s\"#]+", " ", path.read_text(encoding="utf-8"))
    found = [
        phrase
        for phrase in PHRASES
        if re.search(rf"(?<![\w]){re.escape(phrase)}(?![\w])", text, flags=re.IGNORECASE)
    ]
    assert found == []
