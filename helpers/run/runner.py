"""Execute the notebooks in order into a run folder: `python -m helpers.run --help`."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import filelock
import nbformat

from helpers import config, storage
from helpers.config import FIELDS, InputError
from helpers.run import papermill, provenance, report, sources, state
from helpers.run.plan import Plan, absolute, check_inputs, make_plan, parse


def say(text: str) -> None:
    """A line on the terminal, at once."""
    print(text, flush=True)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _again(*words: str) -> str:
    return shlex.join(["python", "-m", "helpers.run", *words])


def _go_on(name: str) -> str:
    place = os.environ.get("XRAY_REPORTS")
    return _again("--name", name, "--resume", *(("--reports", place) if place else ()))


def move_aside(folder: Path) -> Path:
    """Rename a run folder after the time its run started, or it last changed; its new path."""
    record = state.read_record(folder) or {}
    changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC).strftime("%Y%m%d-%H%M%S")
    stamp = str(record.get("started", "")).replace("-", "").replace(":", "").replace("T", "-").rstrip("Z") or changed
    target, number = folder.with_name(f"{folder.name}.{stamp}"), 2
    while target.exists():
        target, number = folder.with_name(f"{folder.name}.{stamp}-{number}"), number + 1
    return folder.rename(target)


class Run:
    """A run folder being filled: its run.json, and its pages in step with it."""

    def __init__(self, plan: Plan):
        self.plan, self.settings, self.folder = plan, absolute(plan.settings), plan.folder
        self.dataset = state.dataset_hash(self.settings)
        recorded = (plan.record or {}).get("notebooks", {})
        self.entries: dict[str, dict] = {}
        for notebook in plan.notebooks:
            try:
                title, purpose = report.opening(nbformat.read(notebook, as_version=4))
            except Exception as error:
                raise InputError(f"{notebook.name} cannot be read as a notebook: {error}") from error
            entry = dict(recorded.get(notebook.stem, {"status": "pending"}))
            self.entries[notebook.stem] = entry | {"title": title or notebook.stem, "purpose": purpose}
        self.record: dict = {}  # run.json, once something is written
        self.hide = provenance.private_paths(plan.settings)

    def inputs(self) -> dict[str, dict]:
        """What each notebook's result depends on now, see `state.inputs`."""
        return state.inputs(self.plan.notebooks, self.plan.settings, self.folder, self.dataset, self.entries)

    def renew(self, stem: str, **values: object) -> dict:
        """A notebook's entry in run.json, begun anew."""
        self.entries[stem] = {key: self.entries[stem][key] for key in ("title", "purpose")} | values
        return self.entries[stem]

    def begin(self) -> None:
        """Start to write: from here on the folder is no longer what it was."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in (*self.folder.glob("*.part"), *self.folder.glob(".*.part.ipynb")):  # of a call that was killed
            half.unlink()
        for notebook in self.plan.todo if not self.plan.resume else ():
            self.renew(notebook.stem, status="pending")
        self.record = provenance.provenance(self.plan.name, self.plan.settings, self.plan.notebooks[0].name[:2])
        self.record["started"] = (self.plan.record or {}).get("started") or _now()
        self.save()

    def save(self) -> None:
        """Write run.json and index.html; a notebook whose inputs have changed since it was done is outdated."""
        inputs = self.inputs()
        for stem, entry in self.entries.items():
            if entry["status"] in ("done", "outdated"):
                entry["why"] = state.why_not_done(entry, inputs[stem], self.folder, stem)
                entry["status"] = "outdated" if entry["why"] else "done"
        self.record |= {"dataset": state.dataset_state(self.folder), "notebooks": self.entries}
        self.record["keras"] = provenance.keras_settings()
        storage.write_json(self.folder / "run.json", self.record)
        report.write_index(self.folder)

    def execute(self, notebook: Path) -> dict | None:
        """Run one notebook and write its page; None, or the failure."""
        stem, parts = notebook.stem, self.inputs()[notebook.stem]
        entry = self.renew(stem, status="running", started=_now())
        self.save()
        parameters = {"profile": self.settings.profile, "run": self.plan.name} | provenance.changed(self.settings)
        helpers, begun, aside = sources.of_helpers(notebook), time.monotonic(), self.folder / f".{stem}.part.ipynb"
        try:
            say(f"{stem:<18}  running")
            with papermill.watched(_beside(self.plan.name, "kernel")) as memory:
                failure = papermill.execute(notebook, aside, parameters)
            if failure:
                failure["message"] = report.hidden(failure["message"], self.hide)
                failure["advice"] = f"After mending that, go on with: {_go_on(self.plan.name)}"
                private = self.hide | {str(config.REPORTS): "reports"}
            self.publish(stem, aside, failure and report.hidden(dict(failure), private))
        except BaseException:
            entry["status"] = "interrupted"
            with contextlib.suppress(OSError):
                self.save()
                aside.unlink(missing_ok=True)
            raise
        entry |= {"seconds": round(time.monotonic() - begun, 1), "peak_memory": memory["peak"]}
        entry |= (self.record["git"] or {"commit": None}) | {key: self.record[key] for key in ("lock", "versions")}
        if failure:
            entry |= {"status": "failed", "failure": report.hidden(dict(failure), private)}
        else:
            wrote = state.written(self.folder, stem[:2])
            entry |= {"status": "done", "key": parts.pop("key"), "inputs": parts, "wrote": wrote, "helpers": helpers}
        self.save()
        cost = f"{report.human_time(entry['seconds'])}  {report.human_bytes(entry['peak_memory'])}"
        say(f"{stem:<18}  {entry['status']}  {cost}")
        return failure

    def publish(self, stem: str, aside: Path, failure: dict | None) -> None:
        """Put the executed notebook and its page in place, each whole or not at all."""
        executed = papermill.without_markers(nbformat.read(aside, as_version=4))
        pages = [(other, entry["title"]) for other, entry in self.entries.items()]
        if failure:  # what comes after may never be written
            pages = pages[: list(self.entries).index(stem) + 1]
        executed.metadata.get("papermill", {}).update(input_path=f"{stem}.ipynb", output_path=f"{stem}.ipynb")
        file = self.folder / f"{stem}.ipynb"
        storage.write_text(file, nbformat.writes(executed) + "\n")
        self.record["dataset"] = state.dataset_state(self.folder)  # 01 has just written it
        report.render(file, file.with_suffix(".html"), pages, self.record, failure, self.hide)
        aside.unlink()

    def carry_out(self) -> int:
        """Do what was planned; the exit status."""
        plan = self.plan
        for notebook in plan.todo:
            stem = notebook.stem
            if plan.resume:
                why = state.why_not_done(self.entries[stem], self.inputs()[stem], plan.folder, stem)
                if not why:
                    say(f"{stem:<18}  skipped: done, and nothing it depends on has changed")
                    continue
                if plan.record:
                    say(f"{stem:<18}  runs: {why}{_changes(plan, stem) if 'settings' in why else ''}")
            if not self.record:
                self.begin()
            if failure := self.execute(notebook):
                where = f"cell {failure['cell']} ({failure['line']})" if failure["cell"] else "its start"
                stopped = f"{stem} stopped at {where}: {failure['error']}{failure['message']}"
                page = config.relative_path(plan.folder / f"{stem}.html")
                print(f"{stopped} See {page}. {failure['advice']}", file=sys.stderr)
                return 1
        if note := sources.note(self.entries, plan.notebooks):
            say(note)
        say(config.relative_path(report.write_index(plan.folder)))
        return 0


def _changes(plan: Plan, stem: str) -> str:
    """Which settings a notebook depends on are not those of run.json, in parentheses."""
    before = (plan.record or {})["parameters"]
    now = [(name, getattr(plan.settings, name)) for name in FIELDS if FIELDS[name].metadata["notebook"] <= stem[:2]]
    found = [f"{name} {before.get(name)} -> {value}" for name, value in now if before.get(name) != value]
    return f" ({', '.join(found)})" if found else ""


def _beside(name: str, what: str) -> Path:
    return config.REPORTS / f".{name}.{what}"


class _Terminated(KeyboardInterrupt):
    """SIGTERM: stop as for ctrl-C, kernel included."""


def _on_sigterm(*_: object) -> None:
    raise _Terminated


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status: 0 done, 1 a notebook failed or a file cannot be written, 2 the wish cannot be met.

    As shells have it, 130 where it was interrupted, 143 where it was ended (SIGTERM), 141 where nobody reads on.
    """
    name, run, handler = "", None, None
    if threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        args = parse(arguments)
        if args.settings:
            say(config.list_settings(args.profile or "demo"))
            return 0
        name = args.name or args.profile or "demo"
        config.run_folder(name)
        config.REPORTS.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(_beside(name, "lock"), timeout=0):
            papermill.stop_stray(_beside(name, "kernel"))
            plan = make_plan(args, name)
            check_inputs(plan.settings, plan.todo)
            run = Run(plan)
            if plan.resume and not plan.record:
                say(f"reports/{name} has no run to go on with: one is begun.")
            if plan.aside:
                say(f"{config.relative_path(plan.folder)} is moved aside to {move_aside(plan.folder).name}")
            return run.carry_out()
    except filelock.Timeout:
        print(f"reports/{name} is in use by another run; wait for it, or give another --name.", file=sys.stderr)
        return 2
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # would tell of the task that was cut off
        begun = run is not None and run.record
        words = arguments if arguments is not None else sys.argv[1:]
        advice = f"Go on with: {_go_on(name)}" if begun else f"Start again with: {_again(*words)}"
        print(f"Stopped; the kernel too. {advice}", file=sys.stderr)
        return 143 if isinstance(stop, _Terminated) else 130
    except BrokenPipeError:
        return storage.close_stdout()
    except OSError as error:
        print(f"reports/{name} cannot be written or read: {error}.", file=sys.stderr)
        return 1
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
