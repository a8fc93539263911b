"""The site of the documentation: how pages and docstrings are changed before it is built."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed; `make docs` installs it")
ROOT = Path(__file__).parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("docs/a.md", "[b](b.md#c)", "[b](b.md#c)"),
        ("docs/a.md", "[run](../serving/RUNBOOK.md#x)", "[run](serving/RUNBOOK.md#x)"),
        ("docs/a.md", "[a folder](../serving/)", "[a folder](serving/README.md)"),
        ("docs/a.md", "[first page](../README.md)", "[first page](index.md)"),
        ("docs/a.md", "the [licence](../LICENSE)", "the licence"),
        ("docs/a.md", "[scripts](../findings/)", "scripts"),
        ("docs/a.md", "![no such](c.png)", "![no such](c.png)"),
        ("docs/a.md", "```\n[x](../LICENSE)\n```", "```\n[x](../LICENSE)\n```"),
        ("serving/README.md", "[b](../docs/b.md)", "[b](../b.md)"),
        ("serving/README.md", "[way](RUNBOOK.md)", "[way](RUNBOOK.md)"),
        ("docs/a.md", "[w](https://example.org/x)", "[w](https://example.org/x)"),
        (
            "docs/a.md",
            "1. one\n\n       code\n\n   more\n\nend",
            "1. one\n\n        code\n\n    more\n\nend",
        ),
        ("docs/a.md", "- one\n  - two\n\n    code", "- one\n    - two\n\n      code"),
    ],
)
def test_links_and_lists_are_those_of_the_site(page, text, expected):
    names = {"b.md", "index.md", "serving/README.md", "serving/RUNBOOK.md"}
    files = SimpleNamespace(get_file_from_path=lambda name: name if name in names else None)
    file = SimpleNamespace(abs_src_path=str(ROOT / page), src_uri=page.removeprefix("docs/"))
    found = load("site_pages").on_page_markdown(text, SimpleNamespace(file=file), None, files)
    assert found == expected


def test_the_reference_lists_the_options_of_a_group_with_help_and_default():
    griffe = pytest.importorskip("griffe")
    package = griffe.load(
        "jdfd_keras.options.detector_options",
        search_paths=[ROOT],
        docstring_parser="google",
        extensions=griffe.load_extensions(load("docstrings").Docstrings),
    )
    sections = {section.kind.value: section for section in package["TrainOptions"].docstring.parsed}
    epochs = next(item for item in sections["attributes"].value if item.name == "epochs")
    assert epochs.description == "passes over the training faces (default: `20`)"
    function = griffe.load(
        "jdfd_keras.options.data_options",
        search_paths=[ROOT],
        docstring_parser="google",
        extensions=griffe.load_extensions(load("docstrings").Docstrings),
    )["setting"]
    assert function.docstring.parsed[-1].kind.value == "examples"


def test_every_public_name_is_in_the_reference():
    import jdfd_keras as jk

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = {line.removeprefix("::: jdfd_keras.") for line in page.splitlines() if ":::" in line}
    assert names == set(jk.__all__) - {"__version__"}
