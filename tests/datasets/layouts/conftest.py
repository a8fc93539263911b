"""What the tests of layouts share: a data set of empty files, for a layout opens no video."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """Make a data set called `mine` of empty files, and of files with a text by their names."""

    def make(*paths, texts=None):
        root = tmp_path / "mine"
        root.mkdir(exist_ok=True)
        for path, text in (dict.fromkeys(paths, "") | (texts or {})).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
        return root

    return make
