"""One run at a time, on file systems that have no locks too."""

import contextlib
import io
import json
import time

import pytest

from jdfd_keras.io import storage as lock
from jdfd_keras.io.storage import OWNER, LocalStore, hold


class Bucket:
    """An object store in memory."""

    place = "memory://bucket/out"

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
    monkeypatch.setattr(lock, "SECONDS_TO_SETTLE", 0.05)
    return Bucket()


@pytest.fixture(params=["a bucket", "a folder"])
def store(request, bucket, tmp_path):
    return bucket if request.param == "a bucket" else LocalStore(str(tmp_path))


def test_a_second_run_is_refused_until_the_first_is_done(store):
    refused = pytest.raises(OSError, match="only run that writes to .*; got another one")
    with hold(store), refused, hold(store):
        pass
    with hold(store):
        pass


def test_a_run_that_fails_lets_go_too(store):
    with pytest.raises(KeyError), hold(store):
        raise KeyError
    with hold(store):
        pass


@pytest.mark.parametrize(("age_s", "is_there"), [(10, True), (290, True), (310, False)])
def test_who_gave_no_sign_for_five_minutes_is_gone(bucket, age_s, is_there):
    sign = {"owner": "killed", "at_s": time.time() - age_s}
    bucket.files[OWNER] = json.dumps(sign).encode()
    refused = pytest.raises(OSError, match="If it was killed, try in 5 minutes")
    with refused if is_there else contextlib.nullcontext(), hold(bucket):
        pass


def test_of_two_that_begin_at_once_one_is_refused(bucket, monkeypatch):
    sign = lock._sign

    def both_sign(store, own, **named):
        sign(store, own, **named)
        sign(store, "the other", **named)  # which looked before we had signed

    monkeypatch.setattr(lock, "_sign", both_sign)
    with pytest.raises(OSError, match="got another one"), hold(bucket):
        pass


def test_the_owner_gives_signs_while_at_work(bucket, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_BETWEEN_SIGNS", 0.02)
    with hold(bucket):
        first = bucket.files[OWNER]
        end = time.monotonic() + 5
        while bucket.files[OWNER] == first and time.monotonic() < end:
            time.sleep(0.01)
        assert bucket.files[OWNER] != first
