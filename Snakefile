# Many runs: one of the seven notebooks for every combination of settings, then a page that compares them.
#
#   make sweep PROFILE=smoke SETS="seed=1,2,3 recipe=classic,full"      on this machine, two runs at once
#   make sweep EXECUTOR=slurm JOBS=20 PROFILE=chest_xray SETS="..."     on a cluster: docs/SCALING.md
#
# A run that was killed goes on where it was, a finished one is left alone, a failing one does not stop the others.

import itertools
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))
from helpers import config as project, storage

PROFILE = str(config.get("profile") or "demo")
SWEEP = str(config.get("sweep") or f"sweep-{PROFILE}")
REPORTS = config.get("reports") or "reports"
PLACE = f"{REPORTS}/{SWEEP}"
CACHE = shlex.quote(str(Path(PLACE).resolve() / "decoded"))  # images, decoded once
PYTHON = shlex.quote(sys.executable)
OPTIONS = f"--reports {shlex.quote(REPORTS)}" if config.get("reports") else ""
# MB of one run: the largest notebook and the process that runs it, as docs/SCALING.md has them, and a fifth more.
# Others by --set-resources run:mem_mb=N.
MEMORY = {"smoke": 1000, "demo": 1200, "chest_xray": 4000}


def combinations(sets):
    """{name of a run: its settings} of text such as "seed=1,2 recipe=classic,full"."""
    named = [text.partition("=") for text in shlex.split(sets)]
    choices = [[(name, value) for value in values.split(",")] for name, _, values in named]
    runs = {}
    for chosen in map(dict, itertools.product(*choices)):
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(f"{name}-{value}" for name, value in chosen.items())).strip("-.")
        if len(slug) > 50 or f"{SWEEP}-{slug}" in runs:  # -1 and 1 have one slug
            slug = f"{slug[:41]}-{storage.fingerprint(chosen)[:8]}"
        try:
            project.make_settings(PROFILE, chosen)
            project.run_folder(f"{SWEEP}-{slug}")
        except project.InputError as error:
            raise WorkflowError(str(error)) from None
        runs[f"{SWEEP}-{slug}" if slug else SWEEP + "-1"] = chosen
    return runs


def check_sweep():
    """Stop before any training where the page of the sweep could not be written."""
    try:
        project.run_folder(SWEEP)
    except project.InputError as error:
        raise WorkflowError(str(error)) from None
    if Path(PLACE, "run.json").exists():
        raise WorkflowError(f"{PLACE} is a run: give the sweep another name, sweep=NAME.")


check_sweep()
RUNS = combinations(str(config.get("sets") or ""))
COMPARE = f"{PYTHON} -m helpers.compare {OPTIONS} --name {shlex.quote(SWEEP)} {shlex.join(RUNS)}"
METRICS = expand(f"{REPORTS}/{{run}}/metrics.json", run=RUNS)


localrules:
    all,
    page,


rule all:
    input:
        METRICS,  # by name: a page that was made without a failed run would do otherwise
        f"{PLACE}/index.html",


rule page:
    input:
        METRICS,
    output:
        f"{PLACE}/index.html",
    shell:
        f"{COMPARE} && rm -rf {CACHE}"


rule run:
    output:
        update(f"{REPORTS}/{{run}}/metrics.json"),  # kept while the run goes on
    log:
        f"{PLACE}/{{run}}.log",
    params:
        settings=lambda wildcards: shlex.join(f"--set={name}={value}" for name, value in RUNS[wildcards.run].items()),
    wildcard_constraints:
        run="|".join(map(re.escape, RUNS)),
    resources:
        mem_mb=MEMORY[PROFILE],
    shell:
        f"XRAY_CACHE={CACHE} {PYTHON} -m helpers.run {OPTIONS} --profile {PROFILE} "
        "--name {wildcards.run} --resume {params.settings} > {log} 2>&1"


onerror:
    shell(COMPARE)  # of the runs that came to their end; it says where the others stopped
