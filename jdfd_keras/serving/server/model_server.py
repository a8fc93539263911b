"""A server for exported models that speaks TensorFlow Serving's REST and gRPC.

Takes which models to serve and how to listen; answers until it is told to stop. For machines
without TensorFlow Serving, and for trying things: it has no TLS and no authentication, and listens
on this machine alone by default.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Sequence

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.grpc_server import GrpcServer
from jdfd_keras.serving.server.inference_service import Calls
from jdfd_keras.serving.server.prometheus import Metrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion
from jdfd_keras.serving.server.rest_server import RestServer

DRAIN_TIMEOUT_S = 30
# What it is reached by, from this machine, where it listens on all addresses.
HERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def run_server(
    configs: Sequence[ModelConfig], options: ServeOptions, ready: Callable[["ModelServer"], None]
) -> None:
    """Serve models until SIGTERM or SIGINT, then finish what is in flight and return.

    Must be called from the main thread. A second signal ends the process at once.

    Args:
        configs: The models.
        options: Addresses and limits.
        ready: Called once the server answers.

    Raises:
        OSError: If a model cannot be loaded, or an address cannot be had.
    """
    stopped = threading.Event()

    def stop(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with ModelServer(configs, options) as server:
        ready(server)
        stopped.wait()


class ModelServer:
    """Models that answer on two ports, from a thread with an event loop of its own.

    Used as a context manager: inside, the server answers; leaving it says NOT_SERVING, finishes
    what is in flight and lets go of models and ports.

    Attributes:
        url: Where REST is, `http://127.0.0.1:8501`.
        grpc_target: Where gRPC is, `127.0.0.1:8500`.
    """

    def __init__(self, configs: Sequence[ModelConfig], options: ServeOptions):
        """Remember what to serve; nothing is loaded yet.

        Args:
            configs: The models.
            options: Addresses and limits.
        """
        self._options = options
        self._repository = Repository(configs)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server")
        self.url = ""
        self.grpc_target = ""

    def __enter__(self):
        """Load the models, then listen.

        Raises:
            OSError: If a model has no version that can be loaded, or an address cannot be had.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._loop.close)
            self._repository.start()
            undo.callback(self._repository.close)
            self._thread.start()
            undo.callback(self._end_thread)
            undo.callback(lambda: self._wait_for(self._drain()))
            self._wait_for(self._start())
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def states(self, name: str) -> list[ServedVersion]:
        """Tell the versions of a model, newest first, with the state of each.

        Raises:
            CallError: If there is no such model.
        """
        return self._repository.states(name)

    async def _start(self) -> None:
        options = self._options
        self._calls = Calls(self._repository, Metrics(self._repository), options)
        self._rest = RestServer(self._calls)
        self._grpc = GrpcServer(self._calls)
        try:
            port = options.port
            await self._rest.start(options.host, port)
            port = options.grpc_port
            await self._grpc.start(options.host, port)
        except (OSError, OverflowError, RuntimeError) as error:
            raise OSError(
                f"Expected to listen on {options.host} port {port}; got '{error}'. "
                "Is another server running there? Try --port 0 and --grpc-port 0 for free ones."
            ) from error
        host = HERE.get(options.host, options.host)
        host = f"[{host}]" if ":" in host else host
        self.url = f"http://{host}:{self._rest.port}"
        self.grpc_target = f"{host}:{self._grpc.port}"

    async def _drain(self) -> None:
        await self._grpc.say_goodbye()
        await asyncio.gather(self._rest.drain(DRAIN_TIMEOUT_S), self._grpc.drain(DRAIN_TIMEOUT_S))
        await self._calls.close()

    def _wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
