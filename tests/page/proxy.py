"""A proxy in front of the page, as nginx would be one, for HTTP and websockets; it changes heads of requests."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """A request up to the empty line, and what came after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _serve(client: socket.socket, port: int, host: str, strip: str) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        head, rest = _head(client)
        if not head:
            return
        head = re.sub(rb"(?mi)^Host:.*$", f"Host: {host}\r".encode() if host else rb"\g<0>", head)
        if b"upgrade: websocket" not in head.lower():  # one request a connection, so that every head is seen
            head = re.sub(rb"(?mi)^Connection:.*\r?\n?", b"", head).rstrip() + b"\r\nConnection: close"
        if strip:
            head = re.sub(rb"^(\S+ )" + strip.rstrip("/").encode(), rb"\1", head)
        server.sendall(head + b"\r\n\r\n" + rest)
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


@contextlib.contextmanager
def proxied(port: int, host: str = "", strip: str = "") -> Iterator[str]:
    """The address of a proxy before `port` on this machine; it puts `host` as Host, and strips a path off."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=_serve, args=(client, port, host, strip), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
