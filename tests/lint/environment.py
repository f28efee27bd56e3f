"""One list, one lock, one range of Python: what is imported is listed, what is listed is locked with hashes."""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.config import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKS = ("analysis.lock", "dev.lock", "sweep.lock")
PYTHONS = ("3.11", "3.12", "3.13")
# what Python's markers say on each platform: sys_platform, platform_system, platform_machine, os_name
PLATFORMS = (
    ("linux", "Linux", "x86_64", "posix"),
    ("darwin", "Darwin", "arm64", "posix"),
    ("win32", "Windows", "AMD64", "nt"),
)
# used through a command line or a kernel, never imported by the analysis
TOOLS = {"ipykernel", "jupyterlab", "python-gdcm", "voila"}
OWN = {"helpers", "tests", "docs", "notebooks"}
DISTRIBUTIONS = packages_distributions()


def listed(name: str) -> dict[str, str]:
    """{canonical name: comment} of the requirements in `requirements/<name>`."""
    found: dict[str, str] = {}
    for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
        requirement, _, comment = line.partition("#")
        if requirement.strip() and not requirement.startswith("-"):
            found[canonicalize_name(Requirement(requirement.strip()).name)] = comment.strip()
    return found


@functools.cache
def locked(name: str) -> tuple[tuple[Requirement, tuple[str, ...]], ...]:
    """((requirement, its hashes), ...) of `requirements/<name>`."""
    text = re.sub(r"^\s*#.*\n", "", (REQUIREMENTS / name).read_text(encoding="utf-8"), flags=re.M)
    lines = [line.split("--hash=") for line in text.replace("\\\n", " ").splitlines()]
    return tuple((Requirement(line[0].strip()), tuple(h.strip() for h in line[1:])) for line in lines)


def installed(name: str, python: str, platform: tuple[str, str, str, str]) -> list[tuple[str, str]]:
    """[(canonical name, version)] that a lock installs there."""
    keys = ("sys_platform", "platform_system", "platform_machine", "os_name")
    environment = dict(zip(keys, platform, strict=True)) | {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.5",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_version": "",
        "extra": "",
    }
    return [
        (canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("=="))
        for requirement, _ in locked(name)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]


def locks_are_pins_with_hashes() -> Iterator[str]:
    """No index and no place on a disk is named in them."""
    for name in LOCKS:
        for requirement, hashes in locked(name):
            if not re.fullmatch(r"==[0-9][0-9A-Za-z.+!]*", str(requirement.specifier)) or not hashes:
                yield f"requirements/{name}: {requirement} is no pin with a hash"
        for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
            known = (
                r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?==[\w.+!]+( ; [^/]+)? \\",  # a pin
                r"    --hash=sha256:[0-9a-f]{64}( \\)?",
                r"    #( via)?( (-[rc] requirements/[a-z]+\.(in|lock)|  )?[\w.-]*)*",  # who asked for it
            )
            if not any(re.fullmatch(form, line) for form in known):
                yield f"requirements/{name}: {line}"


def lists_are_locked_everywhere() -> Iterator[str]:
    for python in PYTHONS:
        for platform in PLATFORMS:
            pins = installed("analysis.lock", python, platform)
            analysis = dict(pins)
            if len(analysis) < len(pins):
                yield f"requirements/analysis.lock: a package is pinned twice on {platform[0]}, Python {python}"
            if missing := sorted(set(listed("analysis.in")) - set(analysis)):
                yield f"requirements/analysis.lock: {missing} on {platform[0]}, Python {python}; run `make lock`"
        tools, analysis = (dict(installed(lock, python, PLATFORMS[0])) for lock in ("dev.lock", "analysis.lock"))
        if missing := sorted(set(listed("dev.in")) - set(tools)):
            yield f"requirements/dev.lock: {missing}, Python {python}; run `make lock`"
        if other := sorted(name for name in tools if analysis.get(name, tools[name]) != tools[name]):
            yield f"requirements/dev.lock: other versions than analysis.lock of {other}, Python {python}"
    if both := sorted(set(listed("dev.in")) & set(listed("analysis.in"))):
        yield f"requirements/dev.in: {both} are in analysis.in, too"


def one_range_of_python() -> Iterator[str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry.split()[0] for entry in environment["dependencies"] if isinstance(entry, str)]
    if sorted(conda) != ["pip", "python"] or environment["dependencies"][-1] != {
        "pip": ["-r requirements/analysis.lock"]
    }:
        yield "environment.yml: conda installs Python and pip; the lock pins the rest"
    low, high = int(PYTHONS[0][2:]), int(PYTHONS[-1][2:]) + 1
    places = {
        "environment.yml": f"python >=3.{low},<3.{high}",
        "pyproject.toml": f'requires-python = ">=3.{low},<3.{high}"',
        "Makefile": f"(3, {low}) <= sys.version_info[:2] < (3, {high})",
        ".github/workflows/ci.yml": json.dumps(list(PYTHONS)),
    }
    for name, text in places.items():
        if text not in (ROOT / name).read_text(encoding="utf-8"):
            yield f"{name}: the range of Python is another one than here ({text!r} is missing)"


def python_sources(*folders: str) -> Iterator[tuple[str, str]]:
    """(path, source) of the modules and notebooks in `folders`; notebooks without their %magics."""
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*")):
        source = path.read_text(encoding="utf-8") if path.suffix in (".py", ".ipynb") else ""
        if path.suffix == ".ipynb" and ".ipynb_checkpoints" not in path.parts:
            code = ["".join(cell["source"]) for cell in json.loads(source)["cells"] if cell["cell_type"] == "code"]
            yield path.relative_to(ROOT).as_posix(), re.sub(r"^\s*[%!].*$", "", "\n".join(code), flags=re.M)
        elif path.suffix == ".py":
            yield path.relative_to(ROOT).as_posix(), source


def imports(*folders: str) -> dict[str, set[str]]:
    """{top-level module of a package: files that import it}, wherever in a file."""
    found: dict[str, set[str]] = {}
    for path, source in python_sources(*folders):
        for node in ast.walk(ast.parse(source, path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in {n.partition(".")[0] for n in names} - sys.stdlib_module_names - OWN:
                found.setdefault(name, set()).add(path)
    return found


def providers(module: str) -> set[str]:
    """Canonical names of the installed packages that provide `module`."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(module, [])}


def imports_are_listed() -> Iterator[str]:
    analysis = set(listed("analysis.in"))
    for module, files in imports("helpers", "notebooks").items():
        if not providers(module) & analysis:
            yield f"requirements/analysis.in: {module} is missing, imported in {sorted(files)}"
    pins = {canonicalize_name(requirement.name) for lock in LOCKS for requirement, _ in locked(lock)}
    for module, files in imports("tests", "docs").items():
        if not providers(module) & pins:
            yield f"requirements/dev.in: {module} is missing, imported in {sorted(files)}"


def lists_say_where_packages_are_used() -> Iterator[str]:
    using: dict[str, set[str]] = {}
    for module, files in imports("helpers", "notebooks", "tests").items():
        for package in providers(module):
            using[package] = using.get(package, set()) | files
    for package, comment in listed("analysis.in").items():
        if not comment:
            yield f"requirements/analysis.in: {package} has no comment that says what for"
        if package not in TOOLS | set(using):
            yield f"requirements/analysis.in: {package} is imported nowhere"
        for place in re.findall(r"helpers/[\w/]*(?:\.py)?", comment):
            if not any(path.startswith(place) for path in using.get(package, ())):
                yield f"requirements/analysis.in: {package} is not imported in {place}"


CHECKS = (
    locks_are_pins_with_hashes,
    lists_are_locked_everywhere,
    one_range_of_python,
    imports_are_listed,
    lists_say_where_packages_are_used,
)
