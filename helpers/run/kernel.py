"""One notebook in a fresh kernel: executed, watched, and ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import psutil
import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm
from traitlets.config import Config

from helpers import config, storage

ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8",
    "MALLOC_ARENA_MAX": "2",  # glibc: threads otherwise keep a tenth more memory, and every run another amount
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


def private_memory(process: psutil.Process) -> int:
    """Bytes of memory that are a process's own, not pages of files it maps or shares; 0 once it is gone."""
    try:
        if sys.platform == "linux":
            memory = process.memory_info()
            return max(memory.rss - memory.shared, 0)
        memory = process.memory_full_info()
        return getattr(memory, "uss", 0) or getattr(memory, "private", 0)
    except psutil.Error:
        return 0


def _children() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


@contextlib.contextmanager
def watched(note: Path) -> Iterator[dict]:
    """Yield {"peak": bytes}, kept up to date for the processes started inside; at the end none of them is left.

    `note` names those processes meanwhile, for `stop_stray` of the next call should this one be killed.
    """
    before, state, stopped = set(_children()), {"peak": 0}, threading.Event()

    def watch() -> None:
        noted: set = set()
        while not stopped.wait(0.25):
            started = [process for process in _children() if process not in before]
            state["peak"] = max(state["peak"], sum(private_memory(process) for process in started))
            if not noted.issuperset(started):
                with contextlib.suppress(OSError, psutil.Error):
                    storage.write_json(note, [[process.pid, process.create_time()] for process in started])
                noted = set(started)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        stopped.set()
        thread.join()
        _end([process for process in _children() if process not in before])
        note.unlink(missing_ok=True)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=3)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def stop_stray(note: Path) -> None:
    """End the kernel of a run that was killed, if it outlived it. Call only while holding the run's lock."""
    stray = []
    with contextlib.suppress(OSError, ValueError, TypeError):
        for pid, started in json.loads(note.read_text(encoding="utf-8")):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                stray += [process] if abs(process.create_time() - started) < 0.01 else []
    _end(stray)
    note.unlink(missing_ok=True)


class LiveOutput:
    """Takes a kernel's stdout as it comes and prints it line by line, a progress bar notwithstanding."""

    def __init__(self) -> None:
        self.rest = ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", "", line.rstrip("\r").split("\r")[-1])
            tqdm.write(f"    {shown}", file=sys.stdout)
        sys.stdout.flush()

    def flush(self) -> None:
        """Whole lines are printed by `write` already."""


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """The kernel's environment variables, and silence of what only says how papermill works."""
    paths = [str(config.ROOT), os.environ.get("PYTHONPATH", "")]
    wanted = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    before = {name: os.environ.get(name) for name in wanted}
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    os.environ.update(wanted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def without_markers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """`notebook` without the cells that papermill adds to show where it stopped."""
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    return notebook


def _failure(cells: list, index: int | None, error: str, message: str) -> dict:
    """Where and why a notebook stopped; cells are counted as a reader of the notebook counts its code cells."""
    own = [c for c in cells[: (index or 0) + 1] if "injected-parameters" not in c.metadata.get("tags", [])]
    number = sum(cell.cell_type == "code" for cell in own) if index is not None else 0
    source = cells[index].source.strip() if cells and index is not None else ""
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith(("#", "%"))] or [source]
    return {"cell": number, "line": lines[0].strip()[:80], "error": error, "message": message}


def _sentence(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")[:400]
    return line if line.endswith((".", "!", "?")) else line + "."


def _manager(log: Path) -> type[AsyncKernelManager]:
    """A kernel manager whose kernels write what their libraries mutter outside any cell into `log`."""

    class LoggingKernelManager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **options) -> None:
            with log.open("ab") as stream:
                await super()._async_launch_kernel(kernel_cmd, **options | {"stderr": stream})

    return LoggingKernelManager


def execute(notebook: Path, executed: Path, parameters: dict) -> dict | None:
    """Execute `notebook` into the file `executed`, its stdout shown meanwhile; kernel.log beside it takes the rest.

    None, or where it stopped and why: {"cell": number among its code cells, "line": the first of that cell,
    "error": kind of error, empty for an InputError, "message"}.
    """
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, executed))
    bar = {"desc": notebook.stem, "leave": False, "file": sys.stderr} if sys.stderr.isatty() else False
    try:
        with _quiet_environment():
            papermill.execute_notebook(
                source,
                target,
                parameters,
                kernel_name="python3",
                language="python",
                cwd=config.NOTEBOOKS,
                progress_bar=bar,
                stdout_file=LiveOutput(),
                start_timeout=300,
                config=Config(
                    {
                        "KernelManager": {"transport_encryption": "auto" if zmq.has("curve") else "disabled"},
                        "NotebookClient": {"kernel_manager_class": _manager(executed.parent / "kernel.log")},
                    }
                ),
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
    except papermill.PapermillExecutionError as error:
        cells = without_markers(nbformat.read(executed, as_version=4)).cells
        if error.ename == "InputError":
            return _failure(cells, error.cell_index, "", " ".join(error.evalue.split()))
        return _failure(cells, error.cell_index, f"{error.ename}: ", _sentence(error.evalue))
    except NoSuchKernel:
        return _failure([], None, "", "there is no Python kernel for Jupyter here; `make setup` installs one.")
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
        started = [i for i, c in enumerate(cells) if c.cell_type == "code" and c.metadata.papermill.get("start_time")]
        died = isinstance(error, DeadKernelError)
        message = "the kernel died, most often because memory ran out." if died else _sentence(str(error))
        return _failure(cells, started[-1] if started else None, "" if died else f"{type(error).__name__}: ", message)
    return None
