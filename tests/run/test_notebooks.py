"""What every notebook calls is there, wherever it is opened; `make lint` checks what notebooks look like."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import config

STEMS = tuple(path.stem for path in sorted(config.NOTEBOOKS.glob("*.ipynb")))
every_notebook = pytest.mark.parametrize("stem", STEMS)


def code(stem: str) -> list[str]:
    notebook = nbformat.read(config.NOTEBOOKS / f"{stem}.ipynb", as_version=nbformat.NO_CONVERT)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


FINDING = code("01_eda")[1].partition("\nfrom helpers")[0]  # `make lint`: the same in all notebooks


@pytest.fixture
def other_clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a clone in another place; what is put on sys.path is taken off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a clone" / "helpers" / "config").mkdir(parents=True)
    return tmp_path / "a clone"


@pytest.mark.parametrize("opened_in", ["", "notebooks", "reports/some run/deep", "helpers"])
def test_helpers_are_found_wherever_in_the_clone_a_notebook_is_opened(other_clone, monkeypatch, opened_in):
    here = other_clone / opened_in
    here.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(here)
    exec(FINDING, {})
    assert sys.path[0] == str(other_clone)


def test_with_the_clone_s_environment_a_notebook_runs_anywhere(other_clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(other_clone / ".venv"))
    exec(FINDING, {})
    assert sys.path[0] == str(other_clone)


def test_in_an_environment_outside_the_clone_a_notebook_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    with pytest.raises(AssertionError, match=r"not at or above .*: start Jupyter \(or papermill\) inside it"):
        exec(FINDING, {})


@every_notebook
def test_every_setting_arrives_whatever_the_notebook_imports(stem, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "REPORTS", tmp_path)
    wanted = config.make_settings("smoke", {"model": "a/b", "data": "c", "seed": 3})
    given = "".join(f"{name} = {getattr(wanted, name)!r}\n" for name in config.FIELDS)
    namespace: dict = {"In": ["", code(stem)[0], f"# Parameters\n{given}run = 'x'"]}
    for source in namespace["In"]:
        exec(source, namespace)
    for source in code(stem)[1:]:
        if any(isinstance(node, ast.ImportFrom) for node in ast.parse(source).body):
            modules = imported([ast.parse(source)])
            namespace |= modules
    assert config.notebook_settings(namespace) == (wanted, tmp_path / "x")


def imported(trees: list[ast.Module]) -> dict[str, object]:
    """What the notebook calls modules of helpers -> the module."""
    names = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module == "helpers":
            names |= {
                alias.asname or alias.name: importlib.import_module(f"helpers.{alias.name}") for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("helpers."):
            assert node.module.count(".") == 1, "a room of a wing"
            assert all(hasattr(importlib.import_module(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            assert "helpers" not in ast.unparse(node), "written as: from helpers import wing"
    return names


@every_notebook
def test_what_it_calls_in_helpers_is_there_and_takes_that(stem):
    trees = [ast.parse(source) for source in code(stem)]
    modules, used, calls = imported(trees), set(), 0
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules:
                used.add(node.value.id)
                assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)
                assert not node.attr.startswith("_"), f"{ast.unparse(node)} is private"
            elif node.value.id == "settings":
                assert node.attr in config.FIELDS, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            spread = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
            if isinstance(owner, ast.Name) and owner.id in modules and not spread:
                wanted = inspect.signature(getattr(modules[owner.id], node.func.attr))
                try:
                    wanted.bind(*node.args, **{keyword.arg: keyword.value for keyword in node.keywords})
                except TypeError as error:
                    pytest.fail(f"{ast.unparse(node)}: {error}")
                calls += 1
    assert used == set(modules), "imported and not used"
    assert calls >= 5
    first = next(i for i, tree in enumerate(trees) if imported([tree]))
    assert [i for i, tree in enumerate(trees) if imported([tree])] == [first], "helpers are imported in one cell"
