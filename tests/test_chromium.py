"""Tests that need a browser are skipped without one, and fail in CI, which installs it."""

from pathlib import Path

import pytest

from tests import chromium, programs

CI = Path(__file__).parent.parent / ".ci" / "run"


@pytest.fixture
def no_chromium(monkeypatch):
    monkeypatch.setattr(chromium, "CHROMIUM", "")


def test_a_test_without_a_browser_is_skipped(no_chromium, monkeypatch):
    monkeypatch.setattr(chromium, "IS_REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        chromium.find_chromium()


def test_a_test_without_a_required_browser_fails(no_chromium, monkeypatch):
    monkeypatch.setattr(chromium, "IS_REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        chromium.find_chromium()


def test_ci_requires_the_browser():
    assert f"\nexport {programs.REQUIRED}=1\n" in CI.read_text(encoding="utf-8")
