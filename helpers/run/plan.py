"""What a call of `python -m helpers.run` is going to do, decided and checked before anything is written."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from helpers import config, dataset, storage
from helpers.config import FIELDS, InputError, Settings
from helpers.run import provenance, state

MODEL_NOTEBOOK = FIELDS["model"].metadata["notebook"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; python -m helpers.run --help shows what there is.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; InputError where it cannot be read."""
    parser = _Parser(prog="python -m helpers.run", description="Run the notebooks in order.", allow_abbrev=False)
    parser.add_argument("--profile", choices=list(config.PROFILES), help="settings to start from (demo)")
    parser.add_argument("--data", metavar="DIR", help="dataset folder: {train,test}/{NORMAL,PNEUMONIA}/")
    parser.add_argument("--name", metavar="RUN", help="folder below reports/ (the profile's name)")
    config.add_reports_argument(parser)
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="settings by name")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--from", metavar="NN", dest="start", help="run again from this notebook on")
    some.add_argument("--only", metavar="NN", help="run this notebook again, and no other")
    parser.add_argument("--resume", action="store_true", help="do what is missing, and nothing else")
    parser.add_argument("--settings", action="store_true", help="list the settings of --profile, and do nothing else")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Plan:
    """What one call of the command is going to do. Paths in `settings` are relative to the clone where not absolute."""

    name: str
    folder: Path
    settings: Settings
    notebooks: list[Path]  # of the whole run
    todo: list[Path]  # of this call; with `resume`, those of them that are not done
    record: dict | None  # run.json of the run so far
    resume: bool
    aside: bool  # an existing folder has to be moved


def find_notebooks() -> list[Path]:
    """The notebooks in their order; InputError when there are none."""
    found = sorted(config.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InputError(f"there are no notebooks such as 01_eda.ipynb in {config.NOTEBOOKS.name}/.")
    return found


def _position(notebooks: list[Path], wanted: str) -> int:
    for index, notebook in enumerate(notebooks):
        if wanted in (notebook.stem, notebook.name, notebook.name[:2], notebook.name[:2].lstrip("0")):
            return index
    raise InputError(f"there is no notebook {wanted!r}; there are {', '.join(n.stem for n in notebooks)}.")


def make_plan(args: argparse.Namespace, name: str) -> Plan:
    """What to run with which settings; InputError where the wish does not fit what is in the run folder."""
    folder, notebooks = config.run_folder(name), find_notebooks()
    overrides: dict = config.parse_assignments(args.set)
    if "profile" in overrides:
        raise InputError("a profile is chosen by --profile, not by --set.")
    if args.data is not None:
        overrides["data"] = args.data
    overrides |= {key: provenance.portable(key, overrides[key]) for key in provenance.PATHS if key in overrides}

    exists = folder.exists() and any(folder.iterdir())
    partial = bool(args.resume or args.start or args.only)
    record = state.read_record(folder) if exists and partial else None
    base = state.recorded_settings(record) if record else config.make_settings(args.profile or "demo")
    if args.profile and args.profile != base.profile:
        raise InputError(
            f"reports/{name} was made with profile {base.profile}, not {args.profile}: give another --name."
        )
    if overrides.get("data"):  # a folder was named: read it, draw nothing into it
        overrides = config.drawn_into(config.ROOT / overrides["data"], overrides) | overrides
    settings = config.make_settings(overrides=overrides, base=base, named=record.get("changed", ()) if record else ())
    changed = [key for key in overrides if getattr(settings, key) != getattr(base, key)]

    wanted = args.only or args.start
    index = _position(notebooks, wanted) if wanted else 0
    number = notebooks[index].name[:2]
    if record:
        trained = any(stem[:2] < MODEL_NOTEBOOK for stem in record["notebooks"])
        if settings.model and ("data" in changed or trained):
            holds = "a run with a model of its own" if trained else "a run on another dataset"
            raise InputError(f"reports/{name} holds {holds}; give this evaluation its own --name.")
        earlier = [key for key in changed if FIELDS[key].metadata["notebook"] < number]
        if earlier:
            first = min(FIELDS[key].metadata["notebook"] for key in earlier)
            raise InputError(
                f"{', '.join(earlier)} would change what notebook {first} made in reports/{name}, which does not run "
                f"again here; use --from {first}, or give another --name."
            )
        begun = [position for position, notebook in enumerate(notebooks) if notebook.stem in record["notebooks"]]
        planned = notebooks[min(begun, default=0) :]
        if wanted and notebooks[index] not in planned:
            raise InputError(f"reports/{name} starts with {planned[0].stem}: it evaluates a saved model.")
    else:
        if index and exists and not args.resume:
            raise InputError(f"reports/{name} has no run.json that can be read; go on with --resume, or start anew.")
        if index and not (settings.model and number == MODEL_NOTEBOOK):
            raise InputError(
                f"there is nothing in reports/{name} for notebook {number} to read: run it from 01, without --from and "
                f"--only; or evaluate a saved model with --from {MODEL_NOTEBOOK} --set model=DIR."
            )
        if settings.model and not index:
            raise InputError(
                f"model={settings.model} is for evaluating, not for training: add --from {MODEL_NOTEBOOK} (and --data)."
            )
        planned = notebooks[index:]
    aside = exists and not partial
    for key in provenance.PATHS if aside else ():
        if Path(provenance.absolute(key, getattr(settings, key))).is_relative_to(folder):
            raise InputError(
                f"{key}={getattr(settings, key)} lies in reports/{name}, which would be moved aside for this run: "
                "give it another --name."
            )
    todo = [notebooks[index]] if args.only else [notebook for notebook in planned if notebook.name[:2] >= number]
    return Plan(name, folder, settings, planned, todo, record, args.resume, aside)


def check_inputs(settings: Settings, todo: list[Path]) -> None:
    """Refuse, before anything runs, what could only fail later: InputError about dataset, model or weights."""
    numbers = {notebook.name[:2] for notebook in todo}
    reads_model = settings.model and MODEL_NOTEBOOK in numbers
    if (settings.data or not settings.phantoms) and ("01" in numbers or reads_model):
        named = settings.data or f"data/{settings.profile}"
        found = dataset.survey(dataset.find_root(absolute(settings)))
        if found.problem:
            raise InputError(found.problem)
        labels = {label for _, split, label in found.images if split != "test"}
        missing = [label for label in config.LABELS if found.images and label not in labels]
        if missing and not settings.model:
            raise InputError(
                f"the dataset folder {named} has no image in train/{missing[0]}: it needs "
                "train/ and test/, each with NORMAL/ and PNEUMONIA/; name one with --data DIR, or use `make data`."
            )
    if reads_model:
        card = Path(absolute(settings).model, "model.json")
        if not card.is_file():
            raise InputError(f"model={settings.model} is not a model folder: there is no model.json in it.")
        saved = storage.read_json(card)  # where it is damaged, the notebook that loads it says how
        if saved.get("threshold", 0) is None:
            raise InputError(
                f"model={settings.model} has no threshold yet and cannot be evaluated: take the folder model/ of a run "
                f"whose notebook {MODEL_NOTEBOOK} is done."
            )
    if "03" in numbers and settings.weights not in config.WEIGHTS and not Path(absolute(settings).weights).is_file():
        raise InputError(f"weights={settings.weights} is neither a file nor one of {', '.join(config.WEIGHTS)}.")


def absolute(settings: Settings) -> Settings:
    paths = {key: provenance.absolute(key, getattr(settings, key)) for key in provenance.PATHS}
    return config.make_settings(overrides=paths, base=settings)
