"""One notebook in a fresh kernel: executed, watched, and ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import zmq
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from tqdm import tqdm
from traitlets.config import Config

from helpers import config, storage

ENVIRONMENT = {
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
        if sys.platform != "linux":
            return process.memory_full_info().uss
        memory = process.memory_info()
        return max(memory.rss - memory.shared, 0)
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
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", "", line.rstrip("\r").split("\r")[-1])
            tqdm.write(f"    {plain}", file=sys.stdout)
        sys.stdout.flush()

    def flush(self) -> None:
        """Whole lines are printed by `write` already."""


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


def _manager(log: Path, environment: dict[str, str]) -> type[AsyncKernelManager]:
    """A kernel manager for this Python, whatever kernels a home has; `log` takes what kernels write outside cells."""

    class OwnKernelManager(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=make_ipkernel_cmd(), display_name="Python 3", language="python")

        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            options["env"] |= environment
            with log.open("ab") as stream:
                await super()._async_launch_kernel(kernel_cmd, **options | {"stderr": stream})

    return OwnKernelManager


class _SavingOnce(NBClientEngine):
    """Papermill's engine, which would write the whole notebook, pictures and all, before and after every cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *arguments: Any, **options: Any) -> None:
        file, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, *arguments, **options)
        finally:
            nb_man.output_path = file  # where it is saved next, whatever happened


papermill_engines.register(_SavingOnce.__name__, _SavingOnce)


def execute(notebook: Path, executed: Path, parameters: dict) -> dict | None:
    """Execute `notebook` into the file `executed`, its stdout shown meanwhile; kernel.log beside it takes the rest.

    None, or where it stopped and why: {"cell": number among its code cells, "line": the first of that cell,
    "error": kind of error, empty for an InputError, "message"}.
    """
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, executed))
    bar = {"desc": notebook.stem, "leave": False, "file": sys.stderr} if sys.stderr.isatty() else False
    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)  # what fails is said by the runner
    paths = os.pathsep.join(filter(None, [str(config.ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as empty:
            environment = ENVIRONMENT | config.clean_environment(Path(empty)) | {"PYTHONPATH": paths}
            manager = _manager(executed.parent / "kernel.log", environment)
            encryption = "auto" if zmq.has("curve") else "disabled"
            options: dict = {"KernelManager": {"transport_encryption": encryption}}
            options |= {"NotebookClient": {"kernel_manager_class": manager}}
            kernel = {"kernel_name": "python3", "language": "python", "start_timeout": 300, "cwd": config.NOTEBOOKS}
            kernel |= {"engine_name": _SavingOnce.__name__}
            kernel |= {"config": Config(options), "extra_arguments": ["--IPKernelApp.log_level=50"]}
            papermill.execute_notebook(source, target, parameters, progress_bar=bar, stdout_file=LiveOutput(), **kernel)
    except papermill.PapermillExecutionError as error:
        cells = without_markers(nbformat.read(executed, as_version=4)).cells
        if error.ename == "InputError":
            return _failure(cells, error.cell_index, "", " ".join(error.evalue.split()))
        return _failure(cells, error.cell_index, f"{error.ename}: ", _sentence(error.evalue))
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
        started = [i for i, c in enumerate(cells) if c.cell_type == "code" and c.metadata.papermill.get("start_time")]
        died = isinstance(error, DeadKernelError)
        message = "the kernel died, most often because memory ran out." if died else _sentence(str(error))
        return _failure(cells, started[-1] if started else None, "" if died else f"{type(error).__name__}: ", message)
    return None
