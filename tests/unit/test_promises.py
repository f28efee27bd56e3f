"""The README's table of promises: every test that it names is there."""

from __future__ import annotations

import ast
import re

import pytest

from helpers import config

TABLE = re.findall(
    r"^\| (.+) \| `(\w+/test_\w+\.py)::(test_\w+)` \|$", (config.ROOT / "README.md").read_text("utf-8"), re.MULTILINE
)


def test_there_are_promises_in_the_readme():
    rows = (config.ROOT / "README.md").read_text("utf-8").count(".py::")
    assert len(TABLE) == rows > 40, "a row of the table cannot be read"


@pytest.mark.parametrize(("promise", "file", "name"), TABLE, ids=[name for _, _, name in TABLE])
def test_a_promise_has_its_test(promise, file, name):
    tree = ast.parse((config.ROOT / "tests" / file).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, promise
