"""Files: whole or not at all, read where they may be missing, told apart by content; and a stdout that was closed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # how formulas begin; the last four, wide


def write_text(path: Path, text: str) -> None:
    """Write aside, then rename, so that a reader never meets half a file. UTF-8, "\\n" line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    replace_file(aside, path)


def replace_file(aside: Path, path: Path) -> None:
    """Rename a file that was written aside, once it is on the disk: not even a power cut leaves half of it."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value) -> None:
    """`value` as sorted, indented JSON; NaN is refused, since other readers of JSON would be."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """What a JSON file holds; {} where it is missing or damaged, or holds something else than an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def writable(text: str) -> str:
    """`text` as it can be written down: bytes of a file's name that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def no_formula(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula: an apostrophe before what begins as one."""
    return "'" + text if text.startswith(FORMULA) else text


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def close_stdout() -> int:
    """After a BrokenPipeError: whoever read stdout, such as `head`, has had enough. Exit status 141, as in shells."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
    return 141


def stamp(file: Path) -> tuple[int, int, int]:
    """Size of a file, and when (ns) its bytes and its state last changed; (-1, 0, 0) where it cannot be seen."""
    try:
        state = file.stat()
    except OSError:
        return -1, 0, 0
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def fingerprint(value) -> str:
    """First 16 hex digits of the SHA-256 of `value` as JSON: what a cached result depends on, in short."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
