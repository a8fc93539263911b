"""One run at a time in a folder, on this machine or beyond it."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from jdfd_keras.data.take import PARTS
from jdfd_keras.storage import Store, is_local, read_text, write_text

OWNER = f"{PARTS}/owner.json"
# Beyond this machine a run says now and then that it is still there.
SECONDS_BETWEEN_SIGNS = 60
SECONDS_UNTIL_GONE = 300
SECONDS_TO_SETTLE = 2  # after which the last of several that begin at once is seen by all


@contextlib.contextmanager
def hold(store: Store) -> Iterator[None]:
    """Keep other runs out of a folder.

    On this machine the system lets go when a run is killed. Other file systems have no locks: a
    file names the owner, who renews it; one who was killed is taken for gone five minutes later.

    Raises:
        OSError: If another run is at work there.
    """
    if is_local(store.place):
        path = Path(store.place, PARTS, "lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise _refuse(store, "Wait for it") from error
        return
    own = uuid.uuid4().hex
    if _read_owner(store) is not None:
        raise _refuse(store, f"If it was killed, try in {SECONDS_UNTIL_GONE // 60} minutes")
    _sign(store, own)
    time.sleep(SECONDS_TO_SETTLE)
    if _read_owner(store) != own:
        raise _refuse(store, "Wait for it")
    done = threading.Event()
    signs = threading.Thread(target=_keep_signing, args=(store, own, done), daemon=True)
    signs.start()
    try:
        yield
    finally:
        done.set()
        signs.join()
        _sign(store, own, at_s=0)  # of long ago: nobody is there any more


def _refuse(store: Store, advice: str) -> OSError:
    return OSError(
        f"Expected to be the only run that writes to {store.place}; got another one at work "
        f"there. {advice}, or choose another --out."
    )


def _read_owner(store: Store) -> str | None:
    """Read who is at work in a folder; nobody, if the last sign is of long ago."""
    if not store.exists(OWNER):
        return None
    sign = json.loads(read_text(store, OWNER))
    return sign["owner"] if time.time() - sign["at_s"] < SECONDS_UNTIL_GONE else None


def _sign(store: Store, own: str, at_s: float | None = None) -> None:
    at_s = time.time() if at_s is None else at_s
    write_text(store, OWNER, json.dumps({"owner": own, "at_s": at_s}))


def _keep_signing(store: Store, own: str, done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):  # the next one may succeed
            _sign(store, own)
