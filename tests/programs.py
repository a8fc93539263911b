"""Programs that tests use but pip does not install."""

import os
import shutil

import pytest

# Set by .ci/run, which installs them: there a test without its program fails instead of being
# skipped.
REQUIRED = "JDFD_KERAS_REQUIRE_PROGRAMS"
IS_REQUIRED = os.environ.get(REQUIRED, "") not in ("", "0")


def find_program(name: str, package: str) -> str:
    """Return the path of a program; skip the test without it, or fail if it is required."""
    if path := shutil.which(name):
        return path
    missing = f"no {name} on this machine: install it, as with apt-get install {package}"
    return (pytest.fail if IS_REQUIRED else pytest.skip)(missing)
