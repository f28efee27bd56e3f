"""Documents say what is so: links, targets, settings, promises, results, versions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from docs import make_results
from helpers import config

ROOT = config.ROOT
README_BYTES = 8192
FOLDERS = (".", "docs", "data", "data/pretrained", "notebooks", "reports", "reports/results")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def readme_is_one_screen() -> Iterator[str]:
    size = (ROOT / "README.md").stat().st_size
    if size > README_BYTES:
        yield f"README.md has {size} bytes; at most {README_BYTES}: move detail to docs/"


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_lead_somewhere() -> Iterator[str]:
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if re.match(r"https?:", link):
                continue
            if not target.exists():
                yield f"{page.relative_to(ROOT)}: {link} is not there"
            elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
                yield f"{page.relative_to(ROOT)}: {name} has no heading #{anchor}"


def paths_exist() -> Iterator[str]:
    """Results are left out: they speak of the commit that they name."""
    for page in (page for page in PAGES if page.parent.name not in ("reports", "results")):
        for path in re.findall(r"`((?:helpers|tests|docs|notebooks|requirements)/[\w./-]*)`", page.read_text("utf-8")):
            if not (ROOT / path).exists():
                yield f"{page.relative_to(ROOT)}: there is no {path}"


def targets_and_settings_exist() -> Iterator[str]:
    """Results are left out: their commands hold at the commit that they name."""
    targets = set(re.findall(r"^([a-z][\w-]*):.*##", read("Makefile"), flags=re.M))
    for page in (page for page in PAGES if page.parent.name not in ("reports", "results")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:`|^|&& )make ([a-z][\w-]*)", text, flags=re.M):
            if target not in targets:
                yield f"{page.relative_to(ROOT)}: there is no `make {target}`"
        for assignments in re.findall(r"--set ([^#`\n]*)", text):
            for name in re.findall(r"\b([a-z_]+)=", assignments):
                if name not in config.FIELDS:
                    yield f"{page.relative_to(ROOT)}: there is no setting {name}"


def promises_have_their_tests() -> Iterator[str]:
    text = read("docs/PROMISES.md")
    rows = re.findall(r"^\| .+ \| `(test_\w+\.py)::(test_\w+)` \|$", text, flags=re.M)
    if len(rows) != text.count(".py::") or not rows:
        yield "docs/PROMISES.md: a row of the table cannot be read"
    for file, name in rows:
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob(file)]
        if name not in {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}:
            yield f"docs/PROMISES.md: there is no {file}::{name}"


def results_are_fresh() -> Iterator[str]:
    if make_results.page_with_table() != make_results.PAGE.read_text(encoding="utf-8"):
        yield "reports/RESULTS.md: its table is not that of the records; run `make results`"
    for record in make_results.load_records():
        if not (make_results.RECORDS / record["page"]).exists():
            yield f"reports/results: {record['page']} is missing, a record names it"


def versions_agree() -> Iterator[str]:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    if yaml.safe_load(read("CITATION.cff"))["version"] != version:
        yield f"CITATION.cff: its version is not pyproject's {version}"
    if f"## [{version}]" not in read("CHANGELOG.md"):
        yield f"CHANGELOG.md: nothing about version {version}"


CHECKS = (
    readme_is_one_screen,
    links_lead_somewhere,
    paths_exist,
    targets_and_settings_exist,
    promises_have_their_tests,
    results_are_fresh,
    versions_agree,
)
