"""Trainings of these tests compute in the same precision on every machine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def plain_processor():
    """Let the precision `auto` be float32, as on a processor without bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.devices.has_bfloat16", lambda: False)
        yield
