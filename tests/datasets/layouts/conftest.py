"""Shared fixtures of the tests of layouts: a dataset of empty files, facts of published splits."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published():
    """Facts of the published lists, which are not part of the project."""
    return json.loads((Path(__file__).parents[2] / "data/published_splits.json").read_text("utf-8"))


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a dataset `mine` of empty files, and of files with texts."""

    def make(*paths, texts=None):
        root = tmp_path / "mine"
        root.mkdir(exist_ok=True)
        for path, text in (dict.fromkeys(paths, "") | (texts or {})).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
        return root

    return make
