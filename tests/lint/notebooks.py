"""What every notebook looks like, before any of them runs."""

from __future__ import annotations

import ast
import json
import re
import statistics
from collections.abc import Iterator

import nbformat

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
MOST_LINES, MEDIAN_LINES, SET_UP_LINES = 20, 5, 12
SLIDES = {"slide", "subslide", "fragment", "skip"}
PARAMETERS = {"profile": "demo", "run": ""}


class Notebook:
    """A notebook as it is stored."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.text = (config.NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8")
        self.nodes = nbformat.reads(self.text, as_version=nbformat.NO_CONVERT)
        self.cells = self.nodes.cells
        self.code = [cell.source for cell in self.cells if cell.cell_type == "code"]
        self.prose = [cell.source for cell in self.cells if cell.cell_type == "markdown"]

    def table(self, row: str) -> str:
        """A row of the opening table, such as "writes"."""
        found = re.search(rf"^\| {row} \| (.*) \|$", self.prose[0], re.MULTILINE)
        return found[1] if found else ""


def stored_without_outputs(notebook: Notebook) -> Iterator[str]:
    nbformat.validate(notebook.nodes)
    if notebook.nodes.metadata.kernelspec.name != "python3" or "version" in notebook.nodes.metadata.get(
        "language_info", {}
    ):
        yield "it is for one Python only, instead of any python3"
    for number, cell in enumerate(notebook.cells):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {number} is stored with outputs; run `nbstripout`"
        if set(cell.metadata) - {"tags", "slideshow"}:
            yield f"cell {number} has metadata beside tags: {sorted(cell.metadata)}"
    if len({cell.id for cell in notebook.cells}) < len(notebook.cells):
        yield "two cells have one id"
    written = json.dumps(json.loads(notebook.text), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if notebook.text != written:
        yield "it is not stored as nbformat writes it"
    if re.search(r"[A-Za-z]:\\\\|/(home|root|Users|work|tmp|content|kaggle)/", notebook.text):
        yield "it names a path of one machine"


def one_parameters_cell(notebook: Notebook) -> Iterator[str]:
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if tagged != notebook.code[:1] or not tagged[0].startswith("# Parameters"):
        yield "its first code cell, and no other, is tagged parameters and begins with '# Parameters'"
        return
    given = {}
    for statement in ast.parse(tagged[0]).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            given[statement.targets[0].id] = ast.literal_eval(statement.value)
    if given != PARAMETERS or len(ast.parse(tagged[0]).body) != len(PARAMETERS):
        yield f"its parameters are not {PARAMETERS}"


def set_up_is_one_cell(notebook: Notebook) -> Iterator[str]:
    """The project is found by the same lines in all, then come the imports of helpers, and the settings are printed."""
    opening, cell = notebook_opening(Notebook(STEMS[0])), notebook.code[1]
    if not cell.startswith(opening):
        yield "its second code cell does not find the project by the same lines as the others do"
    if sum(bool(line.strip()) for line in cell.splitlines()) > SET_UP_LINES:
        yield f"its set-up has more than {SET_UP_LINES} lines"
    if "settings, folder = config.notebook_settings(globals())" not in cell or "print(config.describe(" not in cell:
        yield "its set-up does not load and print the settings"
    if any(re.search(r"^from helpers", source, re.MULTILINE) for source in notebook.code[2:]):
        yield "helpers are imported after the set-up"


def notebook_opening(notebook: Notebook) -> str:
    """The lines of the set-up up to where the project is found."""
    head, last, _ = notebook.code[1].partition("sys.path.insert(0, project)\n")
    return head + last


def opens_and_closes_as_all_do(notebook: Notebook) -> Iterator[str]:
    opening, last = notebook.prose[0], STEMS[-1]
    prose = "\n\n".join(notebook.prose)
    headings = re.findall(r"^(#+) (.+)$", re.sub(r"```.*?```", "", prose, flags=re.DOTALL), re.MULTILINE)
    if notebook.cells[0].cell_type != "markdown" or not re.match(rf"# {int(notebook.stem[:2])}\. \S", opening):
        yield "it does not open with its number and title"
    if [level for level, _ in headings].count("#") != 1:
        yield "it has more than one title"
    table = re.search(r"^\| \| \|\n\|---\|---\|\n((?:\| .+ \|\n?)+)", opening, re.MULTILINE)
    rows = [row.split("|")[1].strip() for row in table[1].splitlines()] if table else []
    if rows != ["reads", "writes", "takes"]:
        yield "its opening has no table of what it reads, writes and takes"
    objectives = re.search(r"^After this notebook you can\n\n((?:\d\. .+\n)+)", opening, re.MULTILINE)
    if not objectives or len(objectives[1].splitlines()) != 3:
        yield "its opening does not say three things: 'After this notebook you can'"
    if [text for level, text in headings if level == "##"][-1:] != ["What we learnt"]:
        yield "its last heading is not 'What we learnt'"
    questions = re.findall(
        r"^\*\*(\d)\.\*\* .+?\?$\n\n<details><summary>Answer</summary>", prose, re.MULTILINE | re.DOTALL
    )
    if questions != ["1", "2", "3"]:
        yield "it does not close with three questions, **1.** to **3.**, their answers folded"
    if f"../notebooks/exercises/{notebook.stem}.ipynb" not in notebook.prose[-1]:
        yield "it does not end with its exercises"
    if notebook.stem != last and f"Next: `{STEMS[STEMS.index(notebook.stem) + 1]}`" not in notebook.prose[-1]:
        yield "it does not end with the next notebook"


def cells_are_slides(notebook: Notebook) -> Iterator[str]:
    """As `jupyter nbconvert --to slides` shows them: a slide for each heading, the set-up left out."""
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type", "") for cell in notebook.cells]
    for number, (cell, kind) in enumerate(zip(notebook.cells, kinds, strict=True)):
        if kind not in SLIDES:
            yield f"cell {number} has no slide_type of {sorted(SLIDES)}"
        elif re.match(r"##? ", cell.source) and cell.cell_type == "markdown" and kind != "slide":
            yield f"cell {number} is a heading and no slide"
        elif cell.cell_type == "code" and cell.source in notebook.code[:2] and kind != "skip":
            yield f"cell {number} is set-up and not skipped"


def cells_are_short_and_define_nothing(notebook: Notebook) -> Iterator[str]:
    lengths = [len(source.splitlines()) for source in notebook.code]
    if max(lengths) > MOST_LINES or statistics.median(lengths) > MEDIAN_LINES or not min(lengths):
        yield f"its code cells have {min(lengths)} to {max(lengths)} lines, median {statistics.median(lengths):g}"
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for source in notebook.code:
        yield from (f"it defines {n.name}" for n in ast.walk(ast.parse(source)) if isinstance(n, definitions))


def table_says_what_cells_do(notebook: Notebook) -> Iterator[str]:
    calls = r"(?:needs|require_file|read_table|load|write_table|write_json|save)\([^\n]*?folder / \"([\w.]+)\""
    for name in re.findall(calls, "\n".join(notebook.code)):
        if not re.search(rf"`{re.escape(name)}(/|`)", notebook.table("reads") + notebook.table("writes")):
            yield f"its opening table does not name {name}"


EVERY = (
    stored_without_outputs,
    one_parameters_cell,
    set_up_is_one_cell,
    cells_are_slides,
    opens_and_closes_as_all_do,
    cells_are_short_and_define_nothing,
    table_says_what_cells_do,
)


def notebooks_are_alike() -> Iterator[str]:
    for stem in STEMS:
        notebook = Notebook(stem)
        yield from (f"notebooks/{stem}.ipynb: {complaint}" for check in EVERY for complaint in check(notebook))


def exercises_and_solutions_are_stored_alike() -> Iterator[str]:
    set_up = Notebook(STEMS[0]).code[1].partition("sys.path.insert")[0]
    for folder in ("exercises", "solutions"):
        if (there := sorted(path.stem for path in (config.NOTEBOOKS / folder).glob("*.ipynb"))) != list(STEMS):
            yield f"notebooks/{folder}: there are {there}"
        for notebook in (Notebook(f"{folder}/{stem}") for stem in there):
            complaints = [*stored_without_outputs(notebook), *one_parameters_cell(notebook)]
            if not notebook.code[1].startswith(set_up):
                complaints.append("its second cell does not find the project as the other notebooks do")
            yield from (f"notebooks/{notebook.stem}.ipynb: {complaint}" for complaint in complaints)


def index_lists_them_in_order() -> Iterator[str]:
    if (there := sorted(path.stem for path in config.NOTEBOOKS.glob("*.ipynb"))) != list(STEMS):
        yield f"notebooks: there are {there}"
    index = (config.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    if re.findall(r"^\| \[(\w+)\]\(\1\.ipynb\) \|", index, re.MULTILINE) != list(STEMS):
        yield "notebooks/README.md: its table does not list the notebooks in order"
    written = [name for stem in STEMS for name in re.findall(r"`([\w.]+/?)`", Notebook(stem).table("writes"))]
    for wanted in ("make lab", "# Parameters", "reports/", *written):
        if wanted not in index:
            yield f"notebooks/README.md: nothing of {wanted}"


CHECKS = (notebooks_are_alike, exercises_and_solutions_are_stored_alike, index_lists_them_in_order)
