"""The house of helpers/: which wing may import which, that a wing's rooms are its own; and how tests are named."""

from __future__ import annotations

import ast

import helpers
from helpers import config

PACKAGE = config.ROOT / "helpers"
WINGS = [line.split()[0] for line in helpers.__doc__.splitlines() if line[:1].islower()]  # in the order of the map
COMMANDS = {"compare", "publish", "serve", "download"}  # python -m helpers.NAME


def imports():
    """(wing, file, dotted name) for every import of helpers in helpers/; "from a import b" gives a.b."""
    for file in sorted(PACKAGE.rglob("*.py")):
        wing = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "helpers":
                yield from ((wing, file.name, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_map_names_every_wing():
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__")} - COMMANDS
    assert there == set(WINGS)


def test_a_wing_imports_only_wings_above_it():
    upward = [row for row in imports() if row[0] in WINGS and WINGS.index(row[2].split(".")[1]) > WINGS.index(row[0])]
    assert not upward


def test_a_wing_imports_no_rooms_of_another():
    rooms = []
    for wing, file, name in imports():
        _, other, *rest = name.split(".")
        if wing not in COMMANDS and wing != other and rest and (PACKAGE / other / f"{rest[0]}.py").is_file():
            rooms.append((wing, file, name))
    assert not rooms


def test_a_test_s_name_has_at_most_70_characters():
    tests = config.ROOT / "tests"
    files = [file for tier in ("unit", "run", "page") for file in sorted((tests / tier).glob("test_*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert len(names) > 500
    assert not [name for name in names if len(name) > 70]
