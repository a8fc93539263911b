"""docs/tutorial.ipynb runs, and its stored outputs are small and hold nothing of one machine."""

import json
import re

import nbformat
import pytest

from tests.tutorial import KEPT_TYPES, NOTEBOOK, execute

MAX_BYTES = 1_500_000
TIME = re.compile(r"\b20\d\d-\d\d|\d\d:\d\d:\d\d|\b20\d\d\b(?=,? UTC)")
PATH = re.compile(r"(?<![\w./])/(?:home|root|tmp|work|usr|Users|opt|var)\b|\bC:\\")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outline(notebook):
    """Return what each cell shows: kinds of output, and printed lines without their numbers."""
    shown = []
    for cell in code_cells(notebook):
        images = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        text = "".join(output.get("text", "") for output in cell.outputs)
        shown.append((images, len(text.splitlines())))
    return shown


def test_the_notebook_is_valid_small_and_complete(notebook):
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert sum(images for images, _ in outline(notebook)) >= 4, "run python tests/tutorial.py"
    for cell in code_cells(notebook):
        assert cell.source.strip() and not cell.metadata.get("execution")


def test_stored_outputs_have_no_path_no_date_and_no_other_kind(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result")
            assert output.get("name", "stdout") == "stdout"
            assert set(output.get("data", {})) <= set(KEPT_TYPES)
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not TIME.search(text) and not PATH.search(text), text
    assert "execution" not in json.dumps(notebook.metadata)


def test_the_patterns_find_paths_and_dates():
    assert PATH.search("saved in /tmp/x") and PATH.search("/home/a")
    assert not PATH.search("tutorial-files/tmp") and not PATH.search("and/or")
    assert TIME.search("2026-11-30") and TIME.search("at 10:15:00")
    assert not TIME.search("score 0.20, 2021 faces")


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_is_stored(notebook, tmp_path):
    executed = execute(notebook, tmp_path)
    assert outline(executed) == outline(notebook), "run python tests/tutorial.py"
    files = tmp_path / "tutorial-files"
    assert (files / "saved_models/tutorial/1/saved_model.pb").is_file()
    assert "<video " in next((files / "verdicts_files").glob("*.html")).read_text(encoding="utf-8")
    text = "\n".join(str(output) for cell in code_cells(executed) for output in cell.outputs)
    assert "leakage: none" in text and "served model: tutorial 1" in text
