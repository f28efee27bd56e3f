"""Make notebooks/exercises from notebooks/solutions: `python notebooks/make_exercises.py`.

The marks are nbgrader's. What stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes a stub, and Markdown
cells tagged `solution` are left out. The rest is the same in both.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
SOLUTIONS, EXERCISES = HERE / "solutions", HERE / "exercises"
SOLVED = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL)
STUB = r'\1raise NotImplementedError("your code here")'


def exercise(solution: str) -> str:
    """The exercise notebook of a solution notebook, both as they are stored."""
    notebook = nbformat.reads(solution, as_version=nbformat.NO_CONVERT)
    notebook.cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" or "solution" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        cell.source = SOLVED.sub(STUB, cell.source)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        (EXERCISES / path.name).write_text(exercise(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"notebooks/exercises/{path.name}")
