"""One list, one lock, one environment: what `environment.yml`, `make setup` and the imports rely on, held together.

The last tests ask a package index. Where none answers they are skipped, and say so; with CI=true they fail instead.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13")
# uv's name of a platform, and what Python's markers say there
PLATFORMS = {
    "x86_64-unknown-linux-gnu": ("linux", "Linux", "x86_64", "posix"),
    "aarch64-apple-darwin": ("darwin", "Darwin", "arm64", "posix"),
    "x86_64-pc-windows-msvc": ("win32", "Windows", "AMD64", "nt"),
}
# used through a command line or a kernel, never imported by the analysis
TOOLS = {"ipykernel", "jupyterlab", "python-gdcm", "voila"}

everywhere = pytest.mark.parametrize("python", PYTHONS)
on_each_platform = pytest.mark.parametrize("platform", PLATFORMS)


def read_list(name: str) -> dict[str, str]:
    """{canonical name: comment} of the requirements in `requirements/<name>`."""
    listed = {}
    for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
        requirement, _, comment = line.partition("#")
        if requirement.strip() and not requirement.startswith("-"):
            listed[canonicalize_name(Requirement(requirement.strip()).name)] = comment.strip()
    return listed


@functools.cache
def read_lock(name: str) -> tuple[tuple[Requirement, tuple[str, ...]], ...]:
    """((requirement, its hashes), ...) of `requirements/<name>`."""
    text = re.sub(r"^\s*#.*\n", "", (REQUIREMENTS / name).read_text(encoding="utf-8"), flags=re.M)
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split("--hash=")
        pins.append((Requirement(requirement.strip()), tuple(h.strip() for h in hashes)))
    return tuple(pins)


def pinned(name: str, python: str, platform: str) -> dict[str, str]:
    """{canonical name: version} that a lock installs there; fails where it names a package twice."""
    system, title, machine, os_name = PLATFORMS[platform]
    environment = {
        "python_version": python,
        "python_full_version": python + ".5",
        "implementation_name": "cpython",
        "implementation_version": python + ".5",
        "platform_python_implementation": "CPython",
        "sys_platform": system,
        "platform_system": title,
        "platform_machine": machine,
        "platform_release": "",
        "platform_version": "",
        "os_name": os_name,
        "extra": "",
    }
    versions: dict[str, str] = {}
    for requirement, _ in read_lock(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            key = canonicalize_name(requirement.name)
            assert key not in versions, f"{key} is pinned twice on {platform}, Python {python}"
            versions[key] = str(requirement.specifier).removeprefix("==")
    return versions


# --- the list and the locks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["analysis.lock", "dev.lock"])
def test_everything_in_a_lock_is_pinned_with_hashes(name):
    for requirement, hashes in read_lock(name):
        assert re.fullmatch(r"==[0-9][0-9A-Za-z.+!]*", str(requirement.specifier)), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), requirement


@everywhere
@on_each_platform
def test_every_direct_dependency_is_locked(python, platform):
    missing = set(read_list("analysis.in")) - set(pinned("analysis.lock", python, platform))
    assert not missing


@everywhere
def test_development_tools_are_locked_beside_the_analysis(python):
    platform = "x86_64-unknown-linux-gnu"
    tools, analysis = pinned("dev.lock", python, platform), pinned("analysis.lock", python, platform)
    assert not set(read_list("dev.in")) - set(tools)
    assert not {n: (v, analysis[n]) for n, v in tools.items() if n in analysis and analysis[n] != v}
    assert not set(read_list("dev.in")) & set(read_list("analysis.in"))


@pytest.mark.parametrize("name", ["analysis.lock", "dev.lock"])
def test_a_lock_names_no_index_and_no_place_on_a_disk(name):
    for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
        known = (
            r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?==[\w.+!]+( ; [^/]+)? \\",  # a pin
            r"    --hash=sha256:[0-9a-f]{64}( \\)?",
            r"    #( via)?( (-[rc] requirements/[a-z]+\.(in|lock)|  )?[\w.-]*)*",  # who asked for it
        )
        assert any(re.fullmatch(form, line) for form in known), line


def test_environment_yml_is_python_and_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"][0] == "conda-forge"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == [["-r requirements/analysis.lock"]]
    assert sorted(d.split()[0] for d in conda) == ["pip", "python"], "what conda would install, the lock pins already"


def test_the_range_of_python_is_the_same_everywhere():
    conda = re.search(r"- python (\S+)", (ROOT / "environment.yml").read_text(encoding="utf-8")).group(1)
    make = re.search(r"\((\d), (\d+)\) <= sys.*? < \((\d), (\d+)\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    low, high = ".".join(make.group(1, 2)), ".".join(make.group(3, 4))
    assert conda == f">={low},<{high}"
    assert [p for p in (f"3.{minor}" for minor in range(8, 20)) if p in SpecifierSet(conda)] == list(PYTHONS)
    assert f'target-version = "py{low.replace(".", "")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "{}.{}".format(*sys.version_info) in PYTHONS


# --- the list and the imports -----------------------------------------------------------------------------------------


def python_sources(*folders: str) -> dict[str, str]:
    """{path: Python source} of the modules and notebooks in `folders`; notebooks without their %magics."""
    sources = {}
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*")):
        if path.suffix == ".py":
            sources[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        elif path.suffix == ".ipynb" and ".ipynb_checkpoints" not in path.parts:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            sources[path.relative_to(ROOT).as_posix()] = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)
    return sources


def third_party_imports(*folders: str) -> dict[str, list[str]]:
    """{top-level module: files that import it}, wherever in a file; without the standard library and `helpers`."""
    found: dict[str, list[str]] = {}
    for path, source in python_sources(*folders).items():
        for node in ast.walk(ast.parse(source, path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {n.partition(".")[0] for n in names} - sys.stdlib_module_names - {"helpers", "tests"}:
                found.setdefault(name, []).append(path)
    return found


providers = functools.cache(packages_distributions)


def distributions(module: str) -> set[str]:
    """Canonical names of the installed packages that provide `module`."""
    return {canonicalize_name(name) for name in providers().get(module, [])}


def test_what_the_analysis_imports_is_listed():
    listed = set(read_list("analysis.in"))
    imports = third_party_imports("helpers", "notebooks")
    unlisted = {module: paths for module, paths in imports.items() if not distributions(module) & listed}
    assert not unlisted, f"add to requirements/analysis.in and run `make lock`: {unlisted}"


def test_what_the_tests_import_is_locked():
    locked = {canonicalize_name(r.name) for name in ("analysis.lock", "dev.lock") for r, _ in read_lock(name)}
    imports = third_party_imports("tests")
    unlocked = {module: paths for module, paths in imports.items() if not distributions(module) & locked}
    assert not unlocked, f"add to requirements/dev.in and run `make lock`: {unlocked}"


def test_what_is_listed_is_used_and_its_comment_says_where():
    imports = third_party_imports("helpers", "notebooks", "tests")
    imported = {name for module in imports for name in distributions(module)}
    listed = read_list("analysis.in")
    assert not sorted(set(listed) - TOOLS - imported), "listed, but imported nowhere"
    assert not [name for name, comment in listed.items() if not comment], "listed without saying what for"
    named = {name: re.findall(r"helpers/\w+\.py", comment) for name, comment in listed.items()}
    using = {}
    for module, files in imports.items():
        for name in distributions(module):
            using[name] = using.get(name, set()) | set(files)
    assert not {name: files for name, files in named.items() if set(files) - using.get(name, set())}


# --- the locks and a package index ------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_a_set_up_that_failed_is_begun_anew_and_only_a_whole_one_is_ready(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    lock = tmp_path / "requirements" / "analysis.lock"

    offline = os.environ | {"PIP_NO_INDEX": "1"}

    def set_up() -> tuple[int, str]:
        words = ["make", "-C", str(tmp_path), "setup", f"PYTHON={sys.executable}"]
        done = subprocess.run(words, capture_output=True, text=True, env=offline, timeout=300)
        return done.returncode, done.stdout + done.stderr

    lock.write_text(f"nowhere-to-be-had==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    for _ in range(2):
        status, said = set_up()
        assert status == 2
        assert "The set-up did not finish" in said
        assert "Ready" not in said
    left = tmp_path / ".venv" / "left-from-the-failed-one"
    left.touch()
    lock.write_text("# nothing is needed\n", encoding="utf-8")
    status, said = set_up()
    assert (status, "Ready: .venv" in said) == (0, True), said
    assert not left.exists()
    status, said = set_up()
    assert (status, "Installing" in said) == (0, False)


def uv(*arguments: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run the uv of this environment, which must not fetch a Python of its own; raises TimeoutExpired."""
    command = [sys.executable, "-m", "uv", *arguments, "--no-python-downloads"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def dry_run(requirements: Path, platform: str, python: str, folder: Path, *more: str) -> subprocess.CompletedProcess:
    return uv(
        *("pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary", ":all:", *more),
        *("--python-platform", platform, "--python-version", python, "--target", str(folder / "target")),
        *("-r", str(requirements)),
        cwd=folder,
    )


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """A package index that answers, tried with one small package of the lock and no cache."""
    folder = tmp_path_factory.mktemp("index")
    text = (REQUIREMENTS / "analysis.lock").read_text(encoding="utf-8")
    one = folder / "one.txt"
    one.write_text(re.search(r"^packaging==.*\\\n(?:    --hash.*\n)+", text, flags=re.M).group(), encoding="utf-8")
    answer = dry_run(one, "x86_64-unknown-linux-gnu", "3.11", folder, "--no-cache")
    if answer.returncode == 0:
        return
    reason = f"no package index answers, so the lock cannot be resolved ({' '.join(answer.stderr.split())[-90:]})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@everywhere
@on_each_platform
@pytest.mark.usefixtures("index")
def test_the_lock_installs_from_wheels_alone(python, platform, tmp_path):
    answer = dry_run(REQUIREMENTS / "analysis.lock", platform, python, tmp_path)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.usefixtures("index")
def test_the_development_lock_installs_from_wheels_alone(tmp_path):
    answer = dry_run(REQUIREMENTS / "dev.lock", "x86_64-unknown-linux-gnu", "3.11", tmp_path)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.usefixtures("index")
def test_make_lock_would_change_nothing(tmp_path):
    """The very commands of the Makefile, on a copy; what is locked stays where it still fits the list."""
    shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
    recipe = re.findall(r"^\t\$\(UV\) (pip compile .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    assert len(recipe) == 2
    for line in recipe:
        answer = uv(*shlex.split(line.replace("$(ARGS)", "")), cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
    for name in ("analysis.lock", "dev.lock"):
        made = (tmp_path / "requirements" / name).read_text(encoding="utf-8")
        assert made == (REQUIREMENTS / name).read_text(encoding="utf-8"), f"{name}: run `make lock`"
