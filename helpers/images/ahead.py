"""Many files, decoded ahead of whoever asks for them, in processes of their own: gdcm keeps Python's lock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from helpers.config import InputError
from helpers.images.reading import Decoded, read

_AHEAD = 32  # files that are being decoded or wait for who asked: at 2,000 pixels, 130 MB


def read_all(paths: Iterable[str], processes: int = 0) -> Iterator[tuple[str, Decoded | InputError]]:
    """Each path, in order, with what `read` makes of it, or its InputError.

    Decoded ahead in so many processes; a file that ends its process has an error, too. With 0, decoded in this
    process, each file when it is asked for.
    """
    if not processes:
        yield from ((path, _attempt(path)) for path in paths)
        return
    remaining, pool = iter(paths), _pool(processes)
    waiting: deque[tuple[str, ProcessPoolExecutor, Future]] = deque()
    try:
        while True:
            waiting += ((path, pool, _submit(pool, path)) for path in islice(remaining, _AHEAD - len(waiting)))
            if not waiting:
                return
            path, asked, future = waiting.popleft()
            try:
                found = future.result()
            except BrokenProcessPool:  # by this file, or by another that was being decoded
                found = _read_alone(path)
                pool = _pool(processes) if pool is asked else pool
            yield path, found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(processes: int) -> ProcessPoolExecutor:
    """Processes that begin from nothing: TensorFlow's threads do not survive a fork."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)


def _begin() -> None:
    """In a new process: leave an interruption to the one that asked, and end when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _attempt(path: str) -> Decoded | InputError:
    try:
        return read(path)
    except InputError as error:
        return error


def _submit(pool: ProcessPoolExecutor, path: str) -> Future:
    try:
        return pool.submit(_attempt, path)
    except BrokenProcessPool as error:
        broken: Future = Future()
        broken.set_exception(error)
        return broken


def _read_alone(path: str) -> Decoded | InputError:
    with _pool(1) as pool:
        try:
            return pool.submit(_attempt, path).result()
        except BrokenProcessPool:
            return InputError(f"{path} cannot be read as an image: it is damaged so badly that decoding ends at once.")
