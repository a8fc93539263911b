"""A server of callbacks on this machine, with the handler of a test."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CallbackHandler(BaseHTTPRequestHandler):
    """Answers a POST with the status that `receive` of a subclass returns for its body."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.receive(body))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve_callbacks(handler):
    """Run a server whose `received` is a list for the handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
