"""Many files, decoded ahead of whoever asks for them, in processes of their own: gdcm keeps Python's lock."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker

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
    remaining, pool, single = iter(paths), _pool(processes), _pool(1)  # no process is started before it is needed
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
                pool = _pool(processes) if pool is asked else pool
                try:
                    found = _submit(single, path).result()
                except BrokenProcessPool:
                    found = InputError(f"{path} cannot be read as an image: decoding it ended the process.")
                    single = _pool(1)
            yield path, found
    finally:
        for one in (pool, single):
            one.shutdown(cancel_futures=True)  # waits: Python's exit, beside a pool that closes, may print a traceback


def _pool(processes: int) -> ProcessPoolExecutor:
    """Processes that begin from nothing, since TensorFlow's threads survive no fork, and leave ctrl-C to this one."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def _attempt(path: str) -> Decoded | InputError:
    try:
        return read(path)
    except InputError as error:
        return error


def _attempt_there(path: str) -> Decoded | InputError:
    """`_attempt` in another process, which ends when the one that asked does, however that ends."""
    _end_with_parent()
    return _attempt(path)


@functools.cache
def _end_with_parent() -> None:
    def follow() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes started within inherit the block, before they can ignore ctrl-C: it ends no import with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _submit(pool: ProcessPoolExecutor, path: str) -> Future:
    try:
        with _ctrl_c_blocked():
            return pool.submit(_attempt_there, path)
    except BrokenProcessPool as error:
        broken: Future = Future()
        broken.set_exception(error)
        return broken
