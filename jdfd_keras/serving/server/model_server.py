"""A server for exported models with TensorFlow Serving's REST and gRPC interfaces.

Takes the models and the options; serves until it is stopped. For machines without TensorFlow
Serving and for trials: it has no TLS and no authentication, and by default it listens on
127.0.0.1 only.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Sequence

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.grpc_server import GrpcServer
from jdfd_keras.serving.server.inference_service import InferenceService
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion
from jdfd_keras.serving.server.rest_server import RestServer

DRAIN_TIMEOUT_S = 30
# The loopback address for a server that listens on all addresses.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def run_server(
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    on_ready: Callable[["ModelServer"], None],
) -> None:
    """Serve models until SIGTERM or SIGINT, then complete requests in flight and return.

    Must be called from the main thread. A second signal ends the process immediately.

    Args:
        configs: The models.
        options: Addresses and limits.
        on_ready: Called with the server once it accepts requests.

    Raises:
        OSError: If a model cannot be loaded or an address cannot be bound.

    Example:
        >>> from jdfd_keras.serving.model_config import configure_directory
        >>> configs = [configure_directory("saved_models/detector")]
        >>> run_server(configs, ServeOptions(), lambda server: print(server.url))
        http://127.0.0.1:8501
    """
    stopped = threading.Event()

    def stop(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with ModelServer(configs, options) as server:
        on_ready(server)
        stopped.wait()


class ModelServer:
    """A server on two ports that runs in its own thread and event loop.

    A context manager: requests are served inside the block; on exit the health service reports
    NOT_SERVING, requests in flight are completed, and models and ports are released.

    Attributes:
        url: Base URL of REST, such as `http://127.0.0.1:8501`.
        grpc_target: Target of gRPC, such as `127.0.0.1:8500`.
    """

    def __init__(self, configs: Sequence[ModelConfig], options: ServeOptions):
        """Create a server; nothing is loaded yet.

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
            OSError: If a model has no loadable version or an address cannot be bound.
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
        """Return the versions of a model with their states, newest first.

        Raises:
            CallError: If the model does not exist.
        """
        return self._repository.states(name)

    async def _start(self) -> None:
        options = self._options
        self._service = InferenceService(self._repository, ServerMetrics(self._repository), options)
        self._rest = RestServer(self._service)
        self._grpc = GrpcServer(self._service)
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
        host = LOOPBACK.get(options.host, options.host)
        host = f"[{host}]" if ":" in host else host
        self.url = f"http://{host}:{self._rest.port}"
        self.grpc_target = f"{host}:{self._grpc.port}"

    async def _drain(self) -> None:
        await self._grpc.set_not_serving()
        await asyncio.gather(self._rest.drain(DRAIN_TIMEOUT_S), self._grpc.drain(DRAIN_TIMEOUT_S))
        await self._service.close()

    def _wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
