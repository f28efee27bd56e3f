"""Settings of a run: profiles, overrides by name, and where things live on disk."""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import platform
import re
import textwrap
from importlib import metadata
from pathlib import Path

from helpers.config.recipes import PHANTOMS, PROFILES, RECIPES
from helpers.config.settings import AUGMENTATIONS, BACKBONES, BASIC, FEWEST_PHANTOMS, FIELDS, LABELS, SUFFIXES, TRAPS
from helpers.config.settings import WEIGHTS, InputError, Settings
from helpers.config.values import drawn_into, expanded, list_settings, make_settings, non_default, parse_assignments
from helpers.config.values import parse_fold, parse_policy

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "data"
for _place in ("XRAY_REPORTS", "XRAY_CACHE"):  # kernels have another working directory
    if os.environ.get(_place):
        os.environ[_place] = str(expanded(os.environ[_place]).resolve())
REPORTS = Path(os.environ.get("XRAY_REPORTS") or ROOT / "reports")  # of run folders
CACHE = os.environ.get("XRAY_CACHE", "")  # where the runs of a sweep share decoded images; empty: they do not
NOTEBOOKS = ROOT / "notebooks"
PRETRAINED = DATA / "pretrained"  # the model that comes with the clone


def notebook_settings(namespace: dict[str, object]) -> tuple[Settings, Path]:
    """Settings and run folder of a notebook: its set-up in one call.

    Reads what the cells that start with "# Parameters" assigned: the notebook's own, and the one papermill injects
    below it. Any setting may be named there beside `profile` and `run` (folder below reports/, by default named
    like the profile). A literal counts as it is written there: by now its name may be another's, as `model` is that of
    a module.

    Parameters
    ----------
    namespace : dict
        The notebook's `globals()`.

    Returns
    -------
    settings : Settings
        The profile's, with the recipe's and the named values.
    folder : Path
        The run folder, below reports/; it is made where it is missing.

    Raises
    ------
    InputError
        If a name is no setting, a value is impossible, or `run` cannot be the name of a folder.
    """
    values: dict = {}
    inputs = namespace.get("In", [])
    for source in inputs if isinstance(inputs, list) else []:
        if source.lstrip().startswith("# Parameters"):
            cell = ast.parse(source)
            nodes = [n for n in ast.walk(cell) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            values |= {node.id: namespace[node.id] for node in nodes if node.id in namespace}
            for statement in cell.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    with contextlib.suppress(ValueError):
                        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    run = values.pop("run", "")
    settings = make_settings(values.pop("profile", "demo"), values)
    folder = run_folder(settings.profile if run == "" else run)
    folder.mkdir(parents=True, exist_ok=True)
    return settings, folder


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on most."""
    packages = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "pillow")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def describe(settings: Settings, run: Path) -> str:
    """A few lines for a notebook's opening: what it works on, where results go, seed, versions.

    Parameters
    ----------
    settings : Settings
    run : Path
        The run folder.

    Returns
    -------
    str
        Lines of at most 80 characters, paths in the clone relative to its root. A run on phantoms says so.
    """
    source = f"{settings.phantoms} phantom patients, drawn by code" if settings.phantoms else dataset_folder(settings)
    versions_line = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        f"profile   {settings.profile}",
        f"data      {source}",
        f"run       {relative_path(run)}",
        f"seed      {settings.seed}",
        textwrap.fill(versions_line, 80, initial_indent="versions  ", subsequent_indent=" " * 10),
    ]
    if settings.phantoms:
        lines.append(textwrap.fill(PHANTOMS, 80, initial_indent="note      ", subsequent_indent=" " * 10))
    if settings.traps != "none":
        lines.append(textwrap.fill(TRAPS[settings.traps], 80, initial_indent="broken    ", subsequent_indent=" " * 10))
    return "\n".join(lines)


def relative_path(path: Path) -> str:
    """`path` as a reader sees it.

    Parameters
    ----------
    path : Path
        A file or folder.

    Returns
    -------
    str
        Relative to the clone, with "/", where it lies in it; else as it is.

    Examples
    --------
    >>> relative_path(REPORTS / "demo")
    'reports/demo'
    """
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def weights_origin(settings: Settings) -> str:
    """Where the backbone's weights come from.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    str
        "imagenet", "none", "phantoms", or a file's name without its folders.

    Examples
    --------
    >>> weights_origin(make_settings("chest_xray", {"weights": "/home/me/x.weights.h5"}))
    'x.weights.h5'
    """
    return settings.weights if settings.weights in WEIGHTS else Path(settings.weights).name


def add_reports_argument(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --reports DIR: run folders lie there from then on, also for the kernels it starts."""

    def use(folder: str) -> Path:
        global REPORTS
        REPORTS = expanded(folder).resolve()
        os.environ["XRAY_REPORTS"] = str(REPORTS)
        return REPORTS

    parser.add_argument("--reports", metavar="DIR", type=use, help="where run folders lie, if not in reports/")


def run_folder(name: str | int) -> Path:
    """reports/<name>; InputError for a name that could leave reports/ or that some system cannot store."""
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError(f"run name {name!r} is not text: put it in quotes (papermill: -r run NAME).")
    name = str(name)  # papermill makes a number of `-p run 2024`
    reserved = re.fullmatch(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)  # devices on Windows
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) or name.endswith(".") or reserved:
        raise InputError(
            f"run name {name!r} cannot be a folder; use letters, digits, '-', '_' and '.', at most 80, and no name "
            "that Windows keeps for devices (con, nul)."
        )
    if name.casefold() == "results":
        raise InputError(
            "the name results is kept for what was measured and published: choose another name for the run."
        )
    return REPORTS / name


def dataset_folder(settings: Settings) -> Path:
    """The dataset of `settings`: `data` where given, else the profile's own folder below data/.

    Phantoms of another number than the profile's, or with a trap that is drawn, have a folder of their own, such as
    data/demo-600-labels. The setting `seed` changes no image, so that runs with different seeds can be compared.
    """
    if settings.data:
        return expanded(settings.data).resolve()
    trap = drawn_trap(settings)
    if not settings.phantoms or (settings.phantoms == make_settings(settings.profile).phantoms and trap == "none"):
        return DATA / settings.profile
    return DATA / "-".join([settings.profile, str(settings.phantoms)] + [trap] * (trap != "none"))


def drawn_trap(settings: Settings) -> str:
    """The setting `traps`, where that changes the phantoms themselves; else "none"."""
    return "none" if settings.traps == "threshold" else settings.traps


def require_file(path: Path, notebook: str) -> Path:
    """`path`, where it exists.

    Parameters
    ----------
    path : Path
        A file or folder of a run.
    notebook : str
        The notebook that writes it, such as "01_eda".

    Raises
    ------
    InputError
        If it is missing; the message names `notebook`.
    """
    if not path.exists():
        raise InputError(f"{path.name} is missing in {path.parent}: run {notebook} first.")
    return path


def clean_environment(empty: Path) -> dict[str, str]:
    """Environment variables with which Jupyter and its kernels take nothing from the user's home.

    `empty` is a folder in which IPython and Jupyter may keep what they need; it has to outlive them.
    """
    matplotlib = metadata.distribution("matplotlib")  # not imported for this
    return {
        "IPYTHONDIR": str(empty / "ipython"),  # start-up files, profiles
        "JUPYTER_CONFIG_DIR": str(empty / "jupyter"),
        "JUPYTER_DATA_DIR": str(empty / "share"),  # kernels, templates of pages
        "JUPYTER_CONFIG_PATH": "",
        "JUPYTER_PATH": "",
        "MATPLOTLIBRC": str(matplotlib.locate_file("matplotlib/mpl-data/matplotlibrc")),
        "PYTHONSTARTUP": "",
    }
