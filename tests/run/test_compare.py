"""Two runs side by side: what differs is named, metrics are paired by patient, and bad names get a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from helpers import config, evaluation, model
from helpers.compare import command, pair
from helpers.evaluation import measure
from helpers.run import runs_table


def write_run(name: str, probabilities: np.ndarray, threshold: float, **parameters) -> None:
    folder = config.REPORTS / name
    folder.mkdir(parents=True)
    rows = np.arange(len(probabilities))
    labels = np.where(rows % 2, "PNEUMONIA", "NORMAL")
    table = pd.DataFrame({"path": [f"{r:03d}.png" for r in rows], "split": "test", "label": labels})
    table.assign(probability=probabilities).to_csv(folder / "predictions.csv", index=False)
    table.assign(patient=rows // 4).to_csv(folder / "splits.csv", index=False)
    table.assign(sha256=table["path"] + parameters.pop("of", "")).to_csv(folder / "manifest.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps({"test": {"threshold": threshold}}))
    entry = {"status": parameters.pop("status", "done"), "commit": name, "inputs": {"code": "c"}}
    entry["helpers"] = {"training.py": parameters.pop("helper", "h")}
    entry["clean"] = parameters.pop("clean", True)
    entry["versions"] = {"keras": parameters.pop("keras", "3")}
    record = {
        "parameters": {"seed": 1, "backbone": "Xception"} | parameters,
        "notebooks": {"05_evaluation": entry},
        "versions": {"keras": "3"},
        "git": {"commit": "of the last look", "clean": True},
    }
    (folder / "run.json").write_text(json.dumps(record | {"run": name, "dataset": {"fingerprint": "f"}}))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "REPORTS", tmp_path)
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    weak, strong = (np.clip(0.5 + s * (labels - 0.5) + rng.normal(0, 0.25, 200), 0, 1) for s in (0.3, 1.0))
    write_run("weak", weak, 0.5)
    write_run("strong", strong, 0.4, seed=2, mirror=True)
    return weak, strong, labels


def test_what_differs_is_named_and_the_metrics_are_those_of_each_run(runs, capsys):
    weak, strong, labels = runs
    parts = dict(pair.compare("weak", "strong"))
    assert parts["Settings"].to_numpy().tolist() == [["mirror", "–", "True"], ["seed", "1", "2"]]
    assert parts["Code and versions"].to_numpy().tolist() == [["commit of 05_evaluation", "weak", "strong"]]
    assert parts["Dataset"] == "No difference."
    table = parts["Test, 200 images in common"].set_index("metric")
    for name, scores, threshold in (("weak", weak, 0.5), ("strong", strong, 0.4)):
        found = measure(labels, scores, threshold)
        assert table.loc["AUC", name] == f"{found['auc']:.3f}"
        assert table.loc["Specificity", name] == f"{found['specificity']:.3f}"
    assert float(table.loc["AUC", "p"]) < 0.01
    assert parts["Predictions"] == "Not equal."
    assert command.main(["weak", "strong"]) == 0
    page = (config.REPORTS / "compare-weak-strong.html").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, page):
        assert table.loc["AUC", "difference (95% interval)"] in text
        assert "mirror" in text


def test_other_helpers_and_uncommitted_changes_are_differences(runs):
    weak, _, _ = runs
    write_run("edited", weak, 0.5, clean=False, helper="other", keras="2")
    found = dict(pair.compare("weak", "edited"))["Code and versions"].set_index("")
    assert found.loc["commit of 05_evaluation"].tolist() == ["weak", "edited with uncommitted changes"]
    assert "helpers of 05_evaluation" in found.index
    assert "notebook 05_evaluation" not in found.index
    assert found.loc["keras of 05_evaluation"].tolist() == ["–", "2"]
    assert "keras" not in found.index  # the last look's versions are equal


def test_equal_predictions_are_said_to_be_equal(runs):
    write_run("again", runs[0], 0.5)
    parts = dict(pair.compare("weak", "again"))
    assert parts["Predictions"] == "Equal to the last digit."
    assert set(parts["Test, 200 images in common"]["p"]) - {"–"} == {"1.000"}
    assert parts["Settings"] == "No difference."


def test_a_run_with_numbers_maybe_older_than_its_settings_is_not_compared(runs, capsys):
    write_run("begun", runs[0], 0.5, dropout=0, status="outdated")
    assert command.main(["weak", "begun"]) == 2
    assert "--name begun --resume" in capsys.readouterr().err


def test_the_comparison_of_phantom_runs_says_so(runs):
    assert command.main(["weak", "strong"]) == 0
    write_run("drawn", runs[0], 0.5, phantoms=100)
    assert command.main(["weak", "drawn"]) == 0
    pages = [(config.REPORTS / f"compare-weak-{name}.html").read_text(encoding="utf-8") for name in ("strong", "drawn")]
    assert ["Phantom run" in page for page in pages] == [False, True]


@pytest.mark.parametrize(("names", "said"), [(["weak", "none"], "no run in"), (["weak", "weak"], "name two")])
def test_what_cannot_be_compared_is_refused(runs, capsys, names, said):
    assert command.main(names) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_predictions_names_the_notebook(runs, capsys):
    (config.REPORTS / "strong" / "predictions.csv").unlink()
    assert command.main(["weak", "strong"]) == 2
    assert "run 05_evaluation first" in capsys.readouterr().err


def test_images_of_equal_names_are_not_taken_for_equal_images(runs, capsys):
    write_run("other", runs[0], 0.5, of="other dataset")
    assert command.main(["weak", "other"]) == 2
    assert "no test image in common" in capsys.readouterr().err


def test_no_image_in_common_is_refused(runs, capsys):
    table = pd.read_csv(config.REPORTS / "strong" / "predictions.csv")
    table.assign(split="validation").to_csv(config.REPORTS / "strong" / "predictions.csv", index=False)
    assert command.main(["weak", "strong"]) == 2
    assert "no test image in common" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="closed pipes")
def test_nobody_reading_what_it_says_ends_it_quietly_with_its_page(runs):
    code = (
        "import sys; from pathlib import Path; from helpers import config; from helpers.compare import command\n"
        "config.REPORTS = Path(sys.argv[1])\nsys.exit(command.main(['weak', 'strong']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code, str(config.REPORTS)]
    done = subprocess.run(command, cwd=config.ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert (config.REPORTS / "compare-weak-strong.html").is_file()


def test_paired_intervals_are_narrower_than_those_of_each(runs):
    weak, _, labels = runs
    close = np.clip(weak + 0.01 * (labels - 0.5), 0, 1)
    patients = np.arange(200) // 4
    change = evaluation.paired_differences(labels, (weak, 0.5), (close, 0.5), patients)["auc"]
    own = evaluation.bootstrap(labels, weak, 0.5, patients, 500, 0)["auc"]
    assert change["difference"] > 0
    assert change["high"] - change["low"] < 0.3 * (own["high"] - own["low"])
    swapped = evaluation.paired_differences(labels, (close, 0.5), (weak, 0.5), patients)["auc"]
    assert swapped["difference"] == pytest.approx(-change["difference"])
    assert swapped["low"] == pytest.approx(-change["high"])
    undefined = evaluation.paired_differences([1] * 4, ([0.2] * 4, 0.5), ([0.4] * 4, 0.5), range(4))
    assert undefined["auc"] == dict.fromkeys(("difference", "low", "high", "p"))
    assert undefined["sensitivity"]["difference"] == 0


def test_runs_on_the_same_data_stand_side_by_side(runs):
    number = {"value": 0.9, "low": 0.8, "high": None}
    for name in ("weak", "strong"):
        test = {"n": 200} | dict.fromkeys(("accuracy", "sensitivity", "specificity", "auc"), number)
        (config.REPORTS / name / "metrics.json").write_text(json.dumps({"test": test}))
    for name, change in (("aside.20260101-000000", {}), ("saved", {"model": "m"}), ("elsewhere", {"of": "x"})):
        write_run(name, runs[0], 0.5, **change)
        (config.REPORTS / name / "metrics.json").write_text((config.REPORTS / "weak" / "metrics.json").read_text())
    shutil.copytree(config.REPORTS / "weak", config.REPORTS / "copy")
    table = runs_table(config.REPORTS / "strong")
    assert list(table.index) == ["weak", "strong"]
    assert list(table["seed"]) == [1, 2]
    assert table.loc["weak", "AUC"] == "0.900"
    assert list(runs_table(config.REPORTS / "copy").index) == ["copy", "weak", "strong"]
    assert list(runs_table(config.REPORTS / "elsewhere").index) == ["elsewhere"]
    (config.REPORTS / "saved" / "model").mkdir()
    (config.REPORTS / "saved" / "model" / "model.keras").write_bytes(b"")
    model.write_card(
        config.REPORTS / "saved" / "model", {"format": 1, "backbone": "SmallCNN", "input_size": [32, 32, 1]}
    )
    own = runs_table(config.REPORTS / "saved")
    assert set(own.index) == {"weak", "strong", "saved"}
    assert own.loc["saved", ["recipe", "backbone", "seed"]].tolist() == ["saved model", "SmallCNN", "–"]


def test_the_page_of_a_sweep_does_not_take_the_place_of_a_run(runs, capsys):
    assert command.main(["weak", "strong", "--name", "weak"]) == 2
    assert "is a run: give the page another name" in capsys.readouterr().err


def test_a_run_named_twice_counts_once(runs, capsys):
    command.main(["weak", "strong", "--name", "sweep"])
    once = (config.REPORTS / "sweep" / "index.html").read_text(encoding="utf-8")
    command.main(["weak", "strong", "weak", "--name", "sweep"])
    assert (config.REPORTS / "sweep" / "index.html").read_text(encoding="utf-8") == once
