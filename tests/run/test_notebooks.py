"""What every notebook looks like, before any of them runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import statistics
import sys

import nbformat
import pytest

from helpers import config

STEMS = (
    "01_eda",
    "02_preprocessing",
    "03_training",
    "04_fine_tuning",
    "05_evaluation",
    "06_grad_cam",
    "07_predict",
)
MOST_LINES, MEDIAN_LINES = 20, 5
every_notebook = pytest.mark.parametrize("stem", STEMS)


def read(stem: str):
    return nbformat.read(config.NOTEBOOKS / f"{stem}.ipynb", as_version=nbformat.NO_CONVERT)


def code(stem: str) -> list[str]:
    return [cell.source for cell in read(stem).cells if cell.cell_type == "code"]


def prose(stem: str) -> list[str]:
    return [cell.source for cell in read(stem).cells if cell.cell_type == "markdown"]


def test_there_are_these_seven_and_the_index_lists_them_in_order():
    assert sorted(path.stem for path in config.NOTEBOOKS.glob("*.ipynb")) == list(STEMS)
    index = (config.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\]\(\1\.ipynb\) \|", index, re.MULTILINE) == list(STEMS)
    for wanted in ("make lab", "# Parameters", "reports/", *(name for stem in STEMS for name in written_by(stem))):
        assert wanted in index


def written_by(stem: str) -> list[str]:
    """File and folder names in the row "writes" of a notebook's opening table."""
    return re.findall(r"`([\w.]+/?)`", re.search(r"^\| writes \| (.*) \|$", prose(stem)[0], re.MULTILINE)[1])


@every_notebook
def test_stored_without_outputs_and_for_any_python3(stem):
    notebook = read(stem)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.get("language_info", {}), "the Python it was saved with"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert set(cell.metadata) <= {"tags"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    text = (config.NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True) + "\n", (
        "how nbformat writes"
    )
    assert not re.search(r"[A-Za-z]:\\\\|/(home|root|Users|work|tmp|content|kaggle)/", text), "a path of one machine"


@every_notebook
def test_one_parameters_cell_of_literals(stem):
    cells = read(stem).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is next(cell for cell in cells if cell.cell_type == "code")
    assert tagged[0].source.startswith("# Parameters")
    given = {}
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        assert len(statement.targets) == 1
        given[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert given == {"profile": "demo", "run": ""}


@every_notebook
def test_opens_with_what_it_is_and_closes_with_what_we_saw(stem):
    texts = prose(stem)
    opening, headings = texts[0], re.findall(r"^(#+) (.+)$", "\n".join(texts), re.MULTILINE)
    assert read(stem).cells[0].cell_type == "markdown"
    assert re.match(rf"# {int(stem[:2])}\. \S", opening)
    assert [level for level, _ in headings].count("#") == 1
    table = re.search(r"^\| \| \|\n\|---\|---\|\n((?:\| .+ \|\n)+)", opening, re.MULTILINE)
    assert [row.split("|")[1].strip() for row in table[1].splitlines()] == ["reads", "writes", "takes"]
    assert re.search(r"^In this notebook we will\n\n1\. ", opening, re.MULTILINE)
    assert headings[-1] == ("##", "What we saw")
    if stem != STEMS[-1]:
        assert f"Next: `{STEMS[STEMS.index(stem) + 1]}`" in texts[-1]


@every_notebook
def test_cells_are_short_and_define_nothing(stem):
    lengths = [len(source.splitlines()) for source in code(stem)]
    assert max(lengths) <= MOST_LINES
    assert statistics.median(lengths) <= MEDIAN_LINES
    assert min(lengths) > 0, "an empty cell"
    defined = [
        node.name
        for source in code(stem)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert defined == []


@pytest.mark.parametrize("opened_in", ["", "notebooks", "reports/some run/deep", "helpers"])
def test_helpers_are_found_wherever_a_notebook_is_opened(tmp_path, monkeypatch, opened_in):
    clone = tmp_path / "a clone"
    (clone / "helpers").mkdir(parents=True)
    here = clone / opened_in
    here.mkdir(parents=True, exist_ok=True)
    found = {stem: next(source for source in code(stem) if "sys.path.insert" in source) for stem in STEMS}
    assert len(set(found.values())) == 1, "the same few lines in every notebook"
    assert all(code(stem).index(source) == 1 for stem, source in found.items()), (
        "before anything of helpers is imported"
    )
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(found["01_eda"], {})
    assert sys.path[0] == str(clone)


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
        elif isinstance(node, ast.Import | ast.ImportFrom):
            assert "helpers." not in ast.unparse(node), "written as: from helpers import module"
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


@every_notebook
def test_the_table_says_what_the_cells_do(stem):
    opening, source = prose(stem)[0], "\n".join(code(stem))
    for name in re.findall(
        r"(?:needs|read_table|load|write_table|write_json|save)\([^\n]*?folder / \"([\w.]+)\"", source
    ):
        assert re.search(rf"^\| (reads|writes) \| .*`{re.escape(name)}(/|`)", opening, re.MULTILINE), name
