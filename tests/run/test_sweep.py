"""`make sweep` on a stand-in notebook, and the page that compares many runs."""

from __future__ import annotations

import importlib.util
import json

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers import config, evaluation
from helpers.compare import command, many
from helpers.evaluation import measure
from tests.torture.sweep import make_sweep_clone

NOTEBOOK = """
import json
from pathlib import Path
from helpers import config
settings, folder = config.notebook_settings(globals())
assert settings.seed != 3 or Path('mended').exists(), 'seed 3 is unlucky'
number = {'value': 0.5, 'low': 0.4, 'high': 0.6}
block = {'n': 2, 'threshold': 0.5} | dict.fromkeys(['auc', 'accuracy', 'sensitivity', 'specificity'], number)
(folder / 'manifest.csv').write_text('path,sha256\\na,1\\nb,2\\n')
(folder / 'splits.csv').write_text('path,patient\\na,1\\nb,2\\n')
(folder / 'predictions.csv').write_text('path,split,label,probability\\na,test,NORMAL,0.1\\nb,test,PNEUMONIA,0.9\\n')
(folder / 'metrics.json').write_text(json.dumps({'test': block}))
"""


@pytest.mark.skipif(not importlib.util.find_spec("snakemake"), reason="no Snakemake: `make sweep` installs it")
def test_a_failing_run_stops_no_other_and_is_all_that_is_done_again(tmp_path):
    clone = make_sweep_clone(tmp_path / "clone")
    for old in clone.notebooks.glob("*.ipynb"):
        old.unlink()
    cells = [nbformat.v4.new_code_cell("# Parameters", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(NOTEBOOK)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), clone.notebooks / "05_evaluation.ipynb")
    words = ["--profile", "workflow/profiles/local", "--jobs", "2", "--config", "profile=smoke", "sets=seed=1,2,3"]
    first = clone.python("snakemake", *words)
    assert first.returncode == 1
    assert "05_evaluation, cell 2" in first.stdout + first.stderr
    assert "seed 3 is unlucky" in (clone.reports / "sweep-smoke" / "index.html").read_text(encoding="utf-8")
    done = {seed: clone.reports / f"sweep-smoke-seed-{seed}" / "run.json" for seed in (1, 2, 3)}
    before = {seed: file.stat().st_mtime_ns for seed, file in done.items()}
    (clone.notebooks / "mended").touch()
    second = clone.python("snakemake", *words)
    assert second.returncode == 0, second.stderr
    assert [seed for seed, file in done.items() if file.stat().st_mtime_ns != before[seed]] == [3]
    assert "unlucky" not in (clone.reports / "sweep-smoke" / "index.html").read_text(encoding="utf-8")
    refused = clone.python("snakemake", *words[:-1], "sets=seed=1 recipes=full")
    assert "the nearest is 'recipe'" in refused.stdout + refused.stderr


LABELS, PATIENTS = np.arange(120) % 2, np.arange(120) // 3


def write_run(name: str, strength: float, rng: np.random.Generator, held: range = range(60), **settings) -> None:
    """A run of 60 validation images (those of `held`) and 60 test images, better with `strength`."""
    folder = config.REPORTS / name
    folder.mkdir(parents=True)
    rows = np.array([*held, *range(60, 120)])
    score = np.clip(0.5 + strength * (LABELS[rows] - 0.5) + rng.normal(0, 0.3, len(rows)), 0, 1)
    table = pd.DataFrame({"path": [f"{row:03d}.png" for row in rows], "probability": score})
    table["split"] = np.where(rows < 60, "validation", "test")
    table["label"] = np.where(LABELS[rows], "PNEUMONIA", "NORMAL")
    table.to_csv(folder / "predictions.csv", index=False)
    table.assign(patient=PATIENTS[rows]).to_csv(folder / "splits.csv", index=False)
    table.assign(sha256=table["path"]).to_csv(folder / "manifest.csv", index=False)
    frame = table.assign(patient=PATIENTS[rows], subtype="")
    parts = frame.groupby("split")
    metrics = {split: evaluation.summarise(part, 0.4, "0.4", 20, 0) for split, part in parts}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    entry = {"status": "done", "seconds": 5.0, "peak_memory": 3 * 10**8}
    parameters = {"profile": "smoke", "seed": 1, "recipe": "classic", "fold": ""} | settings
    record = {"parameters": parameters, "changed": sorted(settings), "notebooks": {"05_evaluation": entry}}
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setattr(config, "REPORTS", tmp_path)
    rng, names = np.random.default_rng(0), []
    for recipe, strength in (("classic", 0.2), ("full", 0.8)):
        for seed in (1, 2):
            names.append(f"{recipe}-{seed}")
            write_run(names[-1], strength, rng, recipe=recipe, seed=seed)
    return names


def measured(name: str) -> dict:
    table = pd.read_csv(config.REPORTS / name / "predictions.csv").query("split == 'test'")
    return measure(table["label"] == "PNEUMONIA", table["probability"], 0.4)


def test_means_and_ranges_are_those_of_the_runs_of_a_group(runs, tmp_path):
    parts = dict(many.compare(runs, tmp_path / "sweep"))
    assert parts["Runs"]["recipe"].tolist() == ["classic", "classic", "full", "full"]
    means = parts["Means over runs"].set_index(["group", "metric"])
    values = [measured(name)["auc"] for name in runs[2:]]
    found = means.loc[("recipe=full", "AUC")]
    assert found["mean (95% interval by patient)"].startswith(f"{np.mean(values):.3f} (")
    assert found["range of runs"] == f"{min(values):.3f} to {max(values):.3f}"
    assert found["runs"] == 2


def test_groups_are_compared_in_pairs_that_differ_in_one_setting(runs, tmp_path):
    parts = dict(many.compare(runs, tmp_path / "sweep"))
    table = parts["recipe: full against classic (pairs of runs: 2)"].set_index("metric")
    weak, strong = (np.mean([measured(name)["auc"] for name in names]) for names in (runs[:2], runs[2:]))
    assert table.loc["AUC", "difference (95% interval)"].startswith(f"{strong - weak:+.3f} (")
    assert table.loc["AUC", "p"] == "< 0.001"
    assert "not corrected" in parts["How to read p"]


def test_folds_are_joined_and_measured_where_all_are_there(runs, tmp_path):
    rng, names = np.random.default_rng(1), []
    for fold in (1, 2):
        names.append(f"fold-{fold}")
        write_run(names[-1], 0.5, rng, range(30 * fold - 30, 30 * fold), fold=f"{fold}/2")
    parts = dict(many.compare(names, tmp_path / "sweep"))
    joined = pd.read_csv(tmp_path / "sweep" / "out_of_fold.csv")
    assert joined["path"].tolist() == [f"{row:03d}.png" for row in range(60)]
    assert joined["fold"].tolist() == [1] * 30 + [2] * 30
    table = parts["Out of fold: validation of all folds, joined"].set_index("metric")
    found = measure(joined["label"] == "PNEUMONIA", joined["probability"], 0.4)
    for metric, name in (("AUC", "auc"), ("Specificity", "specificity")):
        assert table.loc[metric].iloc[-1].startswith(f"{found[name]:.3f} (")
    write_run("fold-3", 0.5, rng, fold="1/3")
    assert dict(many.compare(["fold-3"], tmp_path / "sweep"))["Folds that are missing"] == "all runs: 1 of 3 folds"


def test_the_page_lists_what_stopped_and_compares_the_rest(runs, capsys):
    record = json.loads((config.REPORTS / runs[0] / "run.json").read_text())
    failure = {"cell": 4, "line": "fit()", "error": "ValueError: ", "message": "too few images."}
    record["notebooks"] = {"03_training": {"status": "failed", "failure": failure}}
    (config.REPORTS / runs[0] / "run.json").write_text(json.dumps(record))
    assert command.main([*runs, "never", "--name", "sweep"]) == 0
    page = (config.REPORTS / "sweep" / "index.html").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, page):
        assert "03_training, cell 4 (fit()): ValueError: too few images." in text
        assert "never" in text
        assert "recipe: full against classic (pairs of runs: 1)" in text
    assert page.count("<img ") == 3
    assert '<a href="../full-1/index.html">full-1</a>' in page


def test_where_nothing_was_evaluated_there_is_no_page(runs, capsys):
    assert command.main(["never", "--name", "sweep"]) == 2
    assert "no run has been evaluated" in capsys.readouterr().err
    assert not (config.REPORTS / "sweep").exists()


def test_many_runs_need_a_name_for_their_page(runs, capsys):
    assert command.main(runs) == 2
    assert "--name SWEEP" in capsys.readouterr().err
