"""The names and phrases that docs/language.md lists have not come back."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "language.md"
CODE = [
    *(
        path
        for room in ("jdfd_keras", "tests", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
    ),
    ROOT / "conftest.py",
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
    *(ROOT / ".github").rglob("*.yml"),
    *(ROOT / "jdfd_keras").rglob("*.j2"),
]


def first_column(heading: str) -> list[str]:
    """Read the first column of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def backquoted(cells: list[str]) -> set[str]:
    """Return the words between backquotes."""
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


NAMES = backquoted(first_column("Names that must not come back"))
MODULES = backquoted(first_column("Module names that must not come back"))
PHRASES = [
    phrase
    for cell in first_column("Phrases that must not come back")
    for phrase in cell.split(", ")
]


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


def phrases_in(text: str) -> list[str]:
    """Return the listed phrases in a text, as whole words, over line breaks and quotes."""
    words = re.sub(r"[\s\"#]+", " ", text)
    return [
        phrase
        for phrase in PHRASES
        if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", words, flags=re.IGNORECASE)
    ]


def test_the_page_has_the_lists_and_they_are_found():
    source = "import a as told\nclass Look: pass\ndef f(borders): x.decides = tf.gather(a)"
    assert names_in(source) & NAMES == {"told", "Look", "borders", "decides"}
    assert {"claims", "utils"} <= MODULES
    assert phrases_in('The run is "gone on\n    # with".') == ["gone on with"]
    assert phrases_in("we see thatch") == []


def test_no_name_comes_back():
    found = {path: names_in(path.read_text(encoding="utf-8")) & NAMES for path in CODE}
    assert {str(path): names for path, names in found.items() if names} == {}


def test_no_module_name_comes_back():
    assert {path.stem for path in (ROOT / "jdfd_keras").rglob("*.py")} & MODULES == set()


def test_no_phrase_comes_back():
    texts = [path for path in TEXTS if path not in (PAGE, Path(__file__))]
    found = {path: phrases_in(path.read_text(encoding="utf-8")) for path in texts}
    assert {str(path): phrases for path, phrases in found.items() if phrases} == {}
