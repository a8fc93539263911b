import asyncio
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.server.batching import Batcher
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion

ROW = TensorInfo("float", (None,))


class Doubler:
    """A fake engine: doubles numbers, rejects negative ones, records its batches."""

    def __init__(self):
        self.signatures = {
            "double": Signature("", {"x": TensorInfo("float", None)}, {"y": ROW}),
            "rows": Signature("", {"x": TensorInfo("float", (None, None))}, {"y": ROW, "z": ROW}),
            "twice": Signature("", {"x": ROW}, {"y": ROW}),
        }
        self.batches = []
        self.may_run = threading.Event()
        self.may_run.set()

    def run(self, name, inputs, outputs=None):
        x = inputs["x"]
        self.batches.append((name, len(x), outputs))
        assert self.may_run.wait(10)
        if (x < 0).any():
            raise tf.errors.InvalidArgumentError(None, None, f"{x.min()} is negative")
        y = np.concatenate([x, x]) if name == "twice" else 2 * x
        return dict.fromkeys(outputs or self.signatures[name].outputs, y)


@pytest.fixture
def engine():
    return Doubler()


def run_together(engine, requests, *, first=None, **limits):
    """Outputs or errors of requests that all wait while `first` runs."""
    served = ServedVersion("m", 1, "AVAILABLE", loaded=engine)
    options = ServeOptions(**{"max_batch_size": 4, "max_queue": 20} | limits)

    async def run():
        batcher = Batcher(options, ServerMetrics(Repository([])))

        def call(signature, x, outputs=()):
            return batcher.run(served, signature, {"x": np.array(x, np.float32)}, outputs)

        engine.may_run.clear()
        waiting = [asyncio.create_task(call(*first))] if first else []
        await asyncio.sleep(0.05)
        waiting += [asyncio.create_task(call(*request)) for request in requests]
        await asyncio.sleep(0.05)
        engine.may_run.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await batcher.close()
        return answers[len(waiting) - len(requests) :]

    return asyncio.run(run())


BUSY = ("rows", [[9.0]])


def test_waiting_requests_share_a_batch_and_each_gets_its_own_rows(engine):
    answers = run_together(
        engine,
        [("rows", [[1]]), ("rows", [[2], [3]]), ("rows", [[4]]), ("rows", [[5]])],
        first=BUSY,
    )
    assert [answer["y"].tolist() for answer in answers] == [[[2]], [[4], [6]], [[8]], [[10]]]
    assert [rows for _, rows, _ in engine.batches] == [1, 4, 1]


def test_an_invalid_request_fails_alone(engine):
    answers = run_together(
        engine, [("rows", [[1]]), ("rows", [[-7]]), ("rows", [[3]]), ("rows", [[-2]])], first=BUSY
    )
    assert [answers[0]["y"].tolist(), answers[2]["y"].tolist()] == [[[2]], [[6]]]
    assert [str(answers[1]), str(answers[3])] == ["-7.0 is negative", "-2.0 is negative"]
    assert {answers[1].code.name, answers[3].code.name} == {"INVALID_ARGUMENT"}


def test_only_compatible_requests_share_a_batch(engine):
    run_together(
        engine,
        [("rows", [[1]]), ("rows", [[1, 2]]), ("rows", [[1]], ["z"]), ("rows", [[1]], ["z", "z"])],
        first=BUSY,
    )
    assert engine.batches[1:] == [("rows", 1, ()), ("rows", 1, ()), ("rows", 2, ("z",))]


def test_inputs_of_unknown_rank_are_not_batched(engine):
    run_together(engine, [("double", [1, 2]), ("double", [3, 4])], first=BUSY)
    assert engine.batches[1:] == [("double", 2, ()), ("double", 2, ())]


def test_a_large_request_is_split_and_its_outputs_are_joined(engine):
    (answer,) = run_together(engine, [("rows", [[i] for i in range(10)])])
    assert answer["y"].ravel().tolist() == [2 * i for i in range(10)]
    assert [rows for _, rows, _ in engine.batches] == [4, 4, 2]


def test_outputs_without_one_row_per_input_are_not_mixed(engine):
    requests = [("twice", [1]), ("twice", [2, 3]), ("twice", [4, 5, 6, 7, 8])]
    for answers in (run_together(engine, requests, first=BUSY), run_together(engine, requests)):
        assert [answer["y"].tolist() for answer in answers] == [x + x for _, x in requests]


def test_requests_beyond_the_queue_limit_are_unavailable(engine):
    answers = run_together(engine, [("rows", [[i]]) for i in range(5)], first=BUSY, max_queue=3)
    assert [isinstance(answer, CallError) for answer in answers] == [False] * 3 + [True] * 2
    assert answers[4].code.name == "UNAVAILABLE"
    assert answers[4].http_status == 503


def test_in_a_burst_on_an_idle_server_one_request_runs_and_the_limit_waits(engine):
    requests = [("rows", [[i]]) for i in range(5)]
    answers = run_together(engine, requests, max_queue=3, max_batch_size=1)
    assert [isinstance(answer, CallError) for answer in answers] == [False] * 4 + [True]


def test_a_cancelled_request_is_not_run(engine):
    served = ServedVersion("m", 1, "AVAILABLE", loaded=engine)

    async def run():
        batcher = Batcher(
            ServeOptions(max_batch_size=4, max_queue=2), ServerMetrics(Repository([]))
        )
        engine.may_run.clear()
        x = {"x": np.ones((1, 1), np.float32)}
        busy = asyncio.create_task(batcher.run(served, "rows", x))
        await asyncio.sleep(0.05)
        cancelled, waiting = (asyncio.create_task(batcher.run(served, "rows", x)) for _ in range(2))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.sleep(0)
        again = asyncio.create_task(batcher.run(served, "rows", x))  # the queue has room again
        await asyncio.sleep(0)
        engine.may_run.set()
        await asyncio.gather(busy, waiting, again)
        await batcher.close()

    asyncio.run(run())
    assert [rows for _, rows, _ in engine.batches] == [1, 2]
    assert served.users == 0


def test_an_incomplete_batch_waits_for_the_batch_timeout(engine):
    served = ServedVersion("m", 1, "AVAILABLE", loaded=engine)

    async def run():
        options = ServeOptions(max_batch_size=3, batch_timeout_ms=200)
        batcher = Batcher(options, ServerMetrics(Repository([])))
        x = {"x": np.ones((1, 1), np.float32)}
        start = time.monotonic()
        first = asyncio.create_task(batcher.run(served, "rows", x))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, batcher.run(served, "rows", x))
        waited = time.monotonic() - start
        await asyncio.gather(
            *(batcher.run(served, "rows", x) for _ in range(3))
        )  # full immediately
        full = time.monotonic() - start - waited
        await batcher.close()
        return waited, full

    waited, full = asyncio.run(run())
    assert [rows for _, rows, _ in engine.batches] == [2, 3]
    assert 0.19 < waited < 1
    assert full < 0.15
