"""What the code of notebooks and helpers does, in short: comments, docstrings and layout do not count."""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path

import nbformat

from helpers import storage

PACKAGE = Path(__file__).resolve().parent.parent


def of_notebook(notebook: Path) -> list[str]:
    """What a notebook's code cells do, comments and layout aside; the source itself where it is not plain Python."""
    return [_dumped(source) for source in _cells(notebook)]


def of_helpers(notebook: Path) -> dict[str, str]:
    """Fingerprints of the files of helpers/ that a notebook imports, and of those which they import.

    By path below helpers/, such as "images/decode.py".
    """
    found: dict[str, str] = {}
    waiting = {name for source in _cells(notebook) for name in _imported(source)}
    while waiting:
        file = _file(waiting.pop())
        if file and (name := file.relative_to(PACKAGE).as_posix()) not in found:
            source = file.read_text(encoding="utf-8")
            found[name] = storage.fingerprint(_dumped(source))
            waiting |= _imported(source)
    return found


def changed(entries: dict[str, dict], notebooks: list[Path]) -> dict[str, list[str]]:
    """Files of helpers/ that do something else than when a notebook ran: file name -> numbers of those notebooks.

    `entries` is what run.json says of the notebooks.
    """
    found: dict[str, list[str]] = {}
    for notebook in notebooks:
        before = entries.get(notebook.stem, {}).get("helpers") or {}
        now = of_helpers(notebook) if before else {}
        for name in sorted(now.keys() | before.keys()):
            if now.get(name) != before.get(name):
                found.setdefault(name, []).append(notebook.name[:2])
    return found


def note(entries: dict[str, dict], notebooks: list[Path]) -> str:
    """What to tell of `changed` helpers; "" where there are none.

    Such a change outdates no notebook by itself. Nearly all of helpers/ is behind every notebook, and whether an edit
    touches a result only people can tell: hours of training would be lost to another colour in a plot.
    """
    files = changed(entries, notebooks)
    if not files:
        return ""
    rows = "".join(f"    helpers/{name} since {', '.join(numbers)}\n" for name, numbers in files.items())
    return (
        f"Code has changed since notebooks ran, and what they wrote is kept:\n{rows}--from {min(min(files.values()))} "
        "runs them again on finished trainings; without --from and --resume, all is done anew."
    )


def _cells(notebook: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def _tree(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


@functools.cache  # a run asks at each notebook's beginning and end, and files that changed are other sources
def _dumped(source: str) -> str:
    if (tree := _tree(source)) is None:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False) is not None:
            del node.body[0]
    return json.dumps(_plain(tree))


def _plain(part) -> list | str:
    """A syntax tree as lists and text: like `ast.dump`, but the same under every version of Python."""
    if isinstance(part, ast.AST):
        fields = [[name, _plain(value)] for name, value in ast.iter_fields(part) if value not in (None, [])]
        return [type(part).__name__, *fields]
    return [_plain(member) for member in part] if isinstance(part, list) else repr(part)


@functools.cache
def _imported(source: str) -> frozenset[str]:
    """Dotted names below helpers that a source may import: of modules, and of what it takes from them."""
    nodes = ast.walk(_tree(source) or ast.Module([], []))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers")]
    modules = {node.module or "" for node in froms}
    return frozenset(modules | {f"{node.module}.{alias.name}" for node in froms for alias in node.names})


def _file(module: str) -> Path | None:
    """The file behind a dotted name below helpers; None for helpers itself, and for what is no module."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    files = [path.with_suffix(".py"), path / "__init__.py"] if path != PACKAGE else []
    return next((file for file in files if file.is_file()), None)
