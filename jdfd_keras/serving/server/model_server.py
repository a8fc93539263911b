"""A server for exported models with TensorFlow Serving's REST and gRPC interfaces.

For machines without TensorFlow Serving and for trials: it has no TLS, and by default it listens on
127.0.0.1 only. With a token, every request needs it, but for a health check of gRPC.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from jdfd_keras.io.memory import return_large_blocks
from jdfd_keras.options import EngineOptions, ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.grpc_server import GrpcServer
from jdfd_keras.serving.server.http_server import LOOPBACK, Routes
from jdfd_keras.serving.server.inference_service import InferenceService
from jdfd_keras.serving.server.loop_thread import LoopThread, run_until_signal
from jdfd_keras.serving.server.repository import Repository
from jdfd_keras.serving.server.rest_server import RestServer

DRAIN_TIMEOUT_S = 30


def run_server(
    configs: Sequence[ModelConfig],
    options: ServeOptions,
    on_ready: Callable[["ModelServer"], None],
    engine: EngineOptions | None = None,
    routes: Routes | None = None,
    token: str = "",
) -> None:
    """Serve models until SIGTERM or SIGINT, then complete requests in flight and return.

    Must be called from the main thread. A second signal ends the process immediately.

    Args:
        configs: The models.
        options: Addresses and limits.
        on_ready: Called with the server once it accepts requests.
        engine: Backend and precision of the scores.
        routes: Another API on the port of REST, which checks the token of its own requests.
        token: Token of all other requests; without one, any request is answered.

    Raises:
        OSError: If a model cannot be loaded or an address cannot be bound.

    Example:
        >>> import signal
        >>> def stop(server: ModelServer) -> None:
        ...     print(server.url.startswith("http://127.0.0.1:"))
        ...     signal.raise_signal(signal.SIGTERM)
        >>> from jdfd_keras.serving.model_config import configure_directory
        >>> model = configure_directory("saved_models/detector")
        >>> run_server([model], ServeOptions(port=0, grpc_port=0), stop)
        True
    """
    return_large_blocks()  # a setting of the process, which is the server's own here
    run_until_signal(ModelServer(configs, options, engine, routes, token), on_ready)


class ModelServer:
    """A server on two ports that runs in its own thread and event loop.

    A context manager: requests are served inside the block; on exit the health service reports
    NOT_SERVING, requests in flight are completed, and models and ports are released.

    Attributes:
        url: Base URL of REST, such as `http://127.0.0.1:8501`.
        grpc_target: Target of gRPC, such as `127.0.0.1:8500`.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        options: ServeOptions,
        engine: EngineOptions | None = None,
        routes: Routes | None = None,
        token: str = "",
    ):
        """Create a server, perhaps with another API on the port of REST; nothing is loaded yet."""
        self._options = options
        self._repository = Repository(configs, engine)
        self._routes, self._token = routes, token
        self._loop = LoopThread()
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
            self._loop.start()
            undo.callback(self._loop.stop)
            undo.callback(self._loop.wait_for, self._drain)
            self._loop.wait_for(self._start)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    async def _start(self) -> None:
        options = self._options
        self._service = InferenceService(self._repository, options, self._token)
        self._rest = RestServer(self._service, self._routes)
        self._grpc = GrpcServer(self._service)
        host = LOOPBACK.get(options.host, options.host)
        host = f"[{host}]" if ":" in host else host
        port = options.port
        try:
            self.url = f"http://{host}:{await self._rest.start(options.host, port)}"
            port = options.grpc_port
            self.grpc_target = f"{host}:{await self._grpc.start(options.host, port)}"
        except (OSError, OverflowError, RuntimeError) as error:
            raise OSError(
                f"Expected to listen on {options.host} port {port}; got '{error}'. "
                "Is another server running there? Try --port 0 and --grpc-port 0 for free ones."
            ) from error

    async def _drain(self) -> None:
        await self._grpc.set_not_serving()
        await asyncio.gather(self._rest.drain(DRAIN_TIMEOUT_S), self._grpc.drain(DRAIN_TIMEOUT_S))
        await self._service.close()
