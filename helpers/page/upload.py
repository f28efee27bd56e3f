"""An upload widget that takes large files: the browser checks the size and sends them in pieces; see upload.js.

Not ipywidgets' FileUpload: it sends a file as one message, and the server drops what exceeds 10 MB (measured: a file
of 8 MB arrives, one of 12 does not).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import anywidget
import traitlets

MOST_BYTES = 50 * 2**20
MOST_FILES = 20
_HINT = f"JPEG, PNG, DICOM and others, up to {MOST_BYTES // 2**20} MB each; they stay in memory"


class Upload(anywidget.AnyWidget):
    """A file input. Each whole file is handed to `on_file` as (name, bytes, whether it is the first of those chosen
    together), in memory; nothing is written to disk.

    The next file is asked for, and taken, when the future that `on_file` returns is done: no more than one waits in
    memory, however many a person chooses.
    """

    _esm = Path(__file__).with_name("upload.js")
    hint = traitlets.Unicode(_HINT).tag(sync=True)
    limit = traitlets.Int(MOST_BYTES).tag(sync=True)
    most = traitlets.Int(MOST_FILES).tag(sync=True)

    def __init__(self, on_file: Callable[[str, bytes, bool], Future]):
        super().__init__()
        self._on_file, self._pieces = on_file, bytearray()
        self._busy: Future[None] = Future()
        self._busy.set_result(None)
        self.on_msg(self._on_piece)

    def _on_piece(self, _, message: dict, buffers: list) -> None:
        if message["start"] == 0:
            self._pieces.clear()
        fits = message["start"] == len(self._pieces) and len(self._pieces) + len(buffers[0]) <= MOST_BYTES
        if not (fits and self._busy.done()):  # a page of ours sends neither too much, nor out of order, nor too soon
            self._pieces.clear()
            self.send({"refused": "The upload was interrupted; please choose the file again."})
            return
        self._pieces += buffers[0]
        if message["last"]:
            self.send({"received": True})
            whole, self._pieces = bytes(self._pieces), bytearray()
            self._busy = self._on_file(str(message["name"])[:255], whole, bool(message.get("first", True)))
            self._busy.add_done_callback(lambda _: self.send({"taken": True}))
        else:
            self.send({"taken": True})
