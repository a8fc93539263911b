"""A server of the file service whose jobs end when a test says so."""

import pytest

from tests.serving.jobs.fake_service import serve_fake


@pytest.fixture
def server(tmp_path):
    """The server, without a token."""
    with serve_fake(tmp_path) as server:
        yield server
