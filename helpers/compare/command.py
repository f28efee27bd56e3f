"""Compare runs: `python -m helpers.compare RUN_A RUN_B`, or many with --name SWEEP, and the page of it."""

from __future__ import annotations

import argparse
import sys

import pandas as pd
from markupsafe import Markup

from helpers import config, storage
from helpers.compare import many, pair
from helpers.config import InputError
from helpers.run import report, state


def main(arguments: list[str] | None = None) -> int:
    """The command: prints the comparison and writes it as a page; exit status 2 where it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m helpers.compare", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders below reports/")
    parser.add_argument("--name", metavar="SWEEP", help="write reports/SWEEP/index.html, runs that stopped are listed")
    config.add_reports_argument(parser)
    given = parser.parse_args(arguments)
    runs: list[str] = list(dict.fromkeys(given.runs)) if given.name else given.runs
    try:
        if given.name:
            folder = config.run_folder(given.name)
            if state.read_record(folder):
                raise InputError(f"{config.relative_path(folder)} is a run: give the page another name, --name SWEEP.")
            page, title = folder / "index.html", given.name
            parts = many.compare(runs, folder)
        elif len(runs) == 2:
            page, title = config.REPORTS / f"compare-{'-'.join(runs)}.html", " and ".join(runs)
            parts = pair.compare(*runs)
        else:
            raise InputError("name two runs, or give the page of many a name: --name SWEEP.")
        folders = [config.run_folder(run) for run in runs]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    phantoms = any(report.of_phantoms(state.read_record(folder) or {}, folder) for folder in folders)
    shown = [(heading, _for_page(part)) for heading, part in parts] if given.name else parts
    storage.write_text(
        page, report.write("compare.html.j2", title=title, parts=shown, many=given.name, banner=phantoms)
    )
    try:
        for heading, part in parts:
            if not isinstance(part, Markup):  # a figure
                print(heading, part.to_string(index=False) if isinstance(part, pd.DataFrame) else part, "", sep="\n")
        print(config.relative_path(page), flush=True)
    except BrokenPipeError:
        return storage.close_stdout()
    return 0


def _for_page(part: pd.DataFrame | str) -> pd.DataFrame | str:
    """A part as the page shows it: names of runs lead to their pages, and no interval is broken."""
    if isinstance(part, str):
        return part
    shown = part.map(lambda value: str(value).replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"))
    link = Markup('<a href="../{0}/index.html">{0}</a>')
    return shown.assign(run=[link.format(run) for run in part["run"]]) if "run" in part else shown
