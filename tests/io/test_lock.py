"""One run at a time in a folder, also on file systems without locks."""

import contextlib
import io
import json
import time

import pytest

from jdfd_keras.io import storage
from jdfd_keras.io.storage import OWNER, LocalStore, exclusive_lock


class Bucket:
    """An object store in memory."""

    location = "memory://bucket/out"

    def __init__(self):
        self.files = {}

    def exists(self, name):
        return name in self.files

    def open(self, name):
        return io.BytesIO(self.files[name])

    @contextlib.contextmanager
    def create(self, name):
        file = io.BytesIO()
        yield file
        self.files[name] = file.getvalue()


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_S", 0.05)
    return Bucket()


@pytest.fixture(params=["bucket", "folder"])
def store(request, bucket, tmp_path):
    return bucket if request.param == "bucket" else LocalStore(str(tmp_path))


def test_a_second_run_is_refused_until_the_first_is_done(store):
    refused = pytest.raises(OSError, match="only run that writes to .*; got another one")
    with exclusive_lock(store), refused, exclusive_lock(store):
        pass
    with exclusive_lock(store):
        pass


def test_a_run_that_fails_releases_the_lock(store):
    with pytest.raises(KeyError), exclusive_lock(store):
        raise KeyError
    with exclusive_lock(store):
        pass


@pytest.mark.parametrize(("age_s", "is_active"), [(10, True), (290, True), (310, False)])
def test_a_lease_that_is_not_renewed_expires_after_five_minutes(bucket, age_s, is_active):
    lease = {"owner": "killed", "at_s": time.time() - age_s}
    bucket.files[OWNER] = json.dumps(lease).encode()
    refused = pytest.raises(OSError, match="If it was killed, try in 5 minutes")
    with refused if is_active else contextlib.nullcontext(), exclusive_lock(bucket):
        pass


def test_of_two_runs_that_start_together_one_is_refused(bucket, monkeypatch):
    renew = storage._renew_lease

    def renew_both(store, owner, **at_s):
        renew(store, owner, **at_s)
        renew(store, "the other", **at_s)  # which read the owner before we wrote ours

    monkeypatch.setattr(storage, "_renew_lease", renew_both)
    with pytest.raises(OSError, match="got another one"), exclusive_lock(bucket):
        pass


def test_the_owner_renews_its_lease(bucket, monkeypatch):
    monkeypatch.setattr(storage, "RENEW_EVERY_S", 0.02)
    with exclusive_lock(bucket):
        first = bucket.files[OWNER]
        end = time.monotonic() + 5
        while bucket.files[OWNER] == first and time.monotonic() < end:
            time.sleep(0.01)
        assert bucket.files[OWNER] != first
