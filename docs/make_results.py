"""The table of reports/RESULTS.md, from the records in reports/results: `make results`.

With runs named, keep their test metrics as a record first, the mean of several seeds as one:

    make results ARGS="--name full --question 'How good is ...?' --verdict '...' ten-5 ten-6 ten-7"
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import mean

REPORTS = Path(__file__).resolve().parent.parent / "reports"
PAGE, RECORDS = REPORTS / "RESULTS.md", REPORTS / "results"
METRICS = ("auc", "accuracy", "sensitivity", "specificity")
BEGIN, END = "<!-- made by `make results` -->\n", "<!-- end of what `make results` makes -->"


def record_runs(name: str, runs: list[str], question: str, verdict: str) -> None:
    """Write reports/results/<name>.json: a run with its intervals, or the mean, lowest and highest of several."""
    records = [json.loads((REPORTS / run / "run.json").read_text("utf-8")) for run in runs]
    tests = [json.loads((REPORTS / run / "metrics.json").read_text("utf-8"))["test"] for run in runs]
    values = {key: [test[key]["value"] for test in tests] for key in METRICS}
    several = {key: {"value": mean(v), "low": min(v), "high": max(v)} for key, v in values.items()}
    there = load_records()
    kept = {
        "order": next((r["order"] for r in there if r["page"] == f"{name}.md"), there[-1]["order"] + 10),
        "question": question,
        "command": re.sub(r"(?<=[ =])/\S*/", "", records[0]["command"]),  # no folders of this machine
        "commit": ", ".join(sorted({r["notebooks"]["05_evaluation"]["commit"][:7] for r in records})),
        "n": tests[0]["n"],
        "seeds": [record["parameters"]["seed"] for record in records],
        "metrics": several if len(runs) > 1 else {key: tests[0][key] for key in METRICS},
        "verdict": verdict,
        "page": f"{name}.md",
        "source": f"metrics.json of {', '.join(runs)}",
    }
    (RECORDS / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load_records() -> list[dict]:
    """Every record, in the order of the table."""
    return sorted((json.loads(p.read_text("utf-8")) for p in RECORDS.glob("*.json")), key=lambda r: r["order"])


def describe_metric(name: str, metric: dict, of_seeds: bool) -> str:
    """A metric in words: "AUC 0.985 [0.984–0.987]" for several seeds, round brackets for a 95% interval."""
    title = {"auc": "AUC"}.get(name, name)
    if "low" in metric:
        spread = "{low:.3f}–{high:.3f}".format(**metric)
        return f"{title} {metric['value']:.3f} " + (f"[{spread}]" if of_seeds else f"({spread})")
    return f"{title}: {metric['value']:g}" + (f" (n = {metric['n']})" if "n" in metric else "")


def page_with_table() -> str:
    """RESULTS.md as it should be: its text as it is, its table from the records."""
    lines = ["| question, command, commit | numbers | verdict |", "|---|---|---|"]
    for record in load_records():
        seeds = record["seeds"]
        numbers = [describe_metric(key, value, len(seeds) > 1) for key, value in record["metrics"].items()]
        if seeds:
            which = f"mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
            numbers.insert(0, f"test, n = {record['n']}, {which}")
        asked = f"[{record['question']}](results/{record['page']})<br>`{record['command']}`<br>{record['commit']}"
        lines.append(f"| {asked} | {'<br>'.join(numbers)} | {record['verdict']} |")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    return before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make results", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders below reports/ to keep as one record")
    for option in ("name", "question", "verdict"):
        parser.add_argument(f"--{option}", default="", help=f"{option} of that record")
    given = parser.parse_args()
    if given.runs:
        if not (given.name and given.question and given.verdict):
            parser.error("a record needs --name, --question and --verdict")
        if missing := [run for run in given.runs if not (REPORTS / run / "metrics.json").exists()]:
            parser.error(f"reports/{missing[0]} has no metrics.json: name runs that notebook 05 has evaluated")
        record_runs(given.name, given.runs, given.question, given.verdict)
    PAGE.write_text(page_with_table(), "utf-8")


if __name__ == "__main__":
    main()
