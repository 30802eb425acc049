"""An HTTP server on this machine that serves a file, or some, and does as a test tells it."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Host:
    """What the server sends, and what was asked of it.

    Attributes:
        content: the file; every path leads to it unless ``missing``,
        files: or to the one of its last name here.
        etag: its version; "" sends none.
        script: what to do with the next requests, in order; then `serve`.
        asked: path, Range and If-Range of every request.
        encodings: what encodings each accepts.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.etag = content, '"first"'
        self.script: list[Callable[[Request], None]] = []
        self.files: dict[str, bytes] = {}
        self.missing: set[str] = set()
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.encodings: list[str | None] = []
        self.over = threading.Event()
        self.address = ""

    @property
    def ranges(self) -> list[str | None]:
        return [each[1] for each in self.asked]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def do_GET(self) -> None:
        self.close_connection = True
        headers = self.headers
        self.host.encodings.append(headers.get("Accept-Encoding"))
        self.host.asked.append((self.path, headers.get("Range"), headers.get("If-Range")))
        self.host.script.pop(0)(self) if self.host.script else serve(self)

    @property
    def content(self) -> bytes:
        name = self.path.split("?")[0].rpartition("/")[2]
        return self.host.files.get(name, self.host.content)

    def start(self) -> int:
        """Where the client wants to go on, 0 for the whole or another version's file."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.host.etag) == self.host.etag
        return int(found[1]) if found and same else 0

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if self.host.etag:
            self.send_header("ETag", self.host.etag)
        self.send_header("Connection", "close")
        self.end_headers()

    def announce(self) -> bytes:
        """Sends the headers of a right answer; returns the body that they belong to."""
        content, start = self.content, self.start()
        if start >= len(content) > 0:
            self.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            return b""
        length = {"Content_Length": len(content) - start}
        if start:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.head(206, Content_Range=place, **length)
        else:
            self.head(200, **length)
        return content[start:]

    def log_message(self, *_: object) -> None:
        pass


Behaviour = Callable[[Request], None]


def serve(request: Request) -> None:
    """As a host should."""
    if request.path.split("?")[0] in request.host.missing:
        request.head(404, Content_Length=0)
    else:
        request.wfile.write(request.announce())


def cut(after: int) -> Behaviour:
    """Closes the connection after so many bytes."""
    return lambda request: request.wfile.write(request.announce()[:after]) and None


def stall(after: int) -> Behaviour:
    """Says nothing more after so many bytes, until the test is over."""

    def behave(request: Request) -> None:
        request.wfile.write(request.announce()[:after])
        request.wfile.flush()
        request.host.over.wait(10)

    return behave


def answer(status: int, body: bytes = b"", **headers: object) -> Behaviour:
    """A fixed answer."""

    def behave(request: Request) -> None:
        request.head(status, **({"Content_Length": len(body)} | headers))
        request.wfile.write(body)

    return behave


def whole(request: Request) -> None:
    """Ignores Range."""
    request.head(200, Content_Length=len(request.content))
    request.wfile.write(request.content)


def without_length(request: Request) -> None:
    """Sends the file and closes the connection; nobody can tell that from a cut."""
    request.head(200)
    request.wfile.write(request.content)


def chunked(after: int | None = None) -> Behaviour:
    """In chunks without a length; cut after so many bytes, or ended properly."""

    def behave(request: Request) -> None:
        content = request.content[:after]
        request.head(200, Transfer_Encoding="chunked")
        request.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        if after is None:
            request.wfile.write(b"0\r\n\r\n")

    return behave


@contextmanager
def serving(content: bytes) -> Iterator[Host]:
    """Starts a server, and stops it."""
    host = Host(content)
    handler = type("Handler", (Request,), {"host": host})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    host.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        host.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
