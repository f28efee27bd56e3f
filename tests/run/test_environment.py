"""`make setup` after a failure, and the locks against a package index; `make lint` checks their text.

The last tests ask a package index. Where none answers they are skipped, and say so; with CI=true they fail instead.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13")
# uv's names of them
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc")
everywhere = pytest.mark.parametrize("python", PYTHONS)
on_each_platform = pytest.mark.parametrize("platform", PLATFORMS)


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
    assert len(recipe) == 3
    for line in recipe:
        answer = uv(*shlex.split(line.replace("$(ARGS)", "")), cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
    for name in ("analysis.lock", "dev.lock", "sweep.lock"):
        made = (tmp_path / "requirements" / name).read_text(encoding="utf-8")
        assert made == (REQUIREMENTS / name).read_text(encoding="utf-8"), f"{name}: run `make lock`"
