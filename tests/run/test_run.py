"""The command `python -m helpers.run` and its pages, on small notebooks that the tests write themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import filelock
import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup

from helpers import config, storage
from helpers.run import papermill, plan, provenance, report, runner, sources, state

PARAMETERS = '# Parameters\nprofile = "demo"'
BOOT = (
    "from pathlib import Path\n"
    "from helpers import config\n"
    "config.REPORTS = Path.cwd().parent / 'reports'\n"
    "settings, folder = config.notebook_settings(globals())"
)
# a stand-in for the analysis: every stage reads what the one before it wrote, and counts how often it ran
STAGES = {
    "01_eda": "(folder / 'manifest.csv').write_text(f'path,sha256\\na.png,{settings.seed}\\n')",
    "02_preprocessing": "print('pixels', settings.image_size)\n(folder / 'splits.csv').write_text(f'{settings.seed}')",
    "05_evaluation": "(folder / 'metrics.json').write_text('{\"policy\": \"%s\"}' % settings.threshold_policy)",
    "06_grad_cam": "print((folder / 'metrics.json').read_text())",
}


def write_notebook(path: Path, *cells: str, title: str = "") -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(
        nbformat.v4.new_markdown_cell(f"# {title or path.stem}\n\nWhat it is *for*.\n\n## First part")
    )
    notebook.cells.append(nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(notebook, path)


@pytest.fixture
def house(tmp_path, monkeypatch) -> Path:
    """A folder with stand-in notebooks/ and an empty reports/, which the runner takes for the clone's."""
    monkeypatch.setattr(config, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(config, "REPORTS", tmp_path / "reports")
    config.NOTEBOOKS.mkdir()
    for stem, source in STAGES.items():
        write_notebook(config.NOTEBOOKS / f"{stem}.ipynb", BOOT, source)
    return tmp_path


def record_of(house: Path, name: str = "smoke") -> dict:
    return json.loads((house / "reports" / name / "run.json").read_text(encoding="utf-8"))


def statuses(house: Path, name: str = "smoke") -> dict[str, str]:
    return {stem[:2]: entry["status"] for stem, entry in record_of(house, name)["notebooks"].items()}


def state_of(folder: Path) -> dict:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def recorded_run(house: Path, name: str = "smoke", **overrides) -> config.Settings:
    """A run folder that looks finished, without any kernel having been started."""
    settings = config.make_settings("smoke", overrides)
    folder = house / "reports" / name
    folder.mkdir(parents=True)
    first = "05" if settings.model else "01"
    record = provenance.provenance(name, settings, first)
    stems = [path.stem for path in plan.find_notebooks() if path.name[:2] >= first]
    record |= {"notebooks": {stem: {"status": "done"} for stem in stems}, "started": "2025-01-02T03:04:05Z"}
    storage.write_json(folder / "run.json", record)
    return settings


def refusal(capsys, *arguments: str) -> str:
    """The sentence with which the command refuses `arguments`, exit status 2."""
    assert runner.main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_whole_run_then_resume_then_only_then_aside(house, capsys):
    folder = house / "reports" / "smoke"
    assert runner.main(["--profile", "smoke", "--resume", "--set", "image_size=96", "--set", "resamples=60"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("reports/smoke has no run to go on with: one is begun.")
    assert "    pixels 96" in said
    assert re.search(r"01_eda +done  [\d.]+ s  \d+ MB", said)
    assert said.rstrip().endswith("index.html")
    assert not [path for path in folder.iterdir() if "part" in path.name]
    record = record_of(house)
    assert record["parameters"]["image_size"] == 96
    assert record["changed"] == ["image_size", "resamples"]
    assert record["command"] == "python -m helpers.run --profile smoke --name smoke --set image_size=96 resamples=60"
    assert record["dataset"]["files"] == 1
    assert len(record["lock"]) == 64
    assert record["versions"]["papermill"]
    for entry in record["notebooks"].values():
        assert (entry["lock"], entry["versions"]) == (record["lock"], record["versions"])
    assert record["seeds"] == {"seed": 1}
    assert all(entry["seconds"] > 0 and entry["peak_memory"] > 1e6 for entry in record["notebooks"].values())
    assert str(Path.home()) + os.sep not in json.dumps(record)
    assert str(house) not in json.dumps(record)

    before = state_of(folder)
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    assert state_of(folder) == before
    assert capsys.readouterr().out.count("skipped: done") == 4

    # a new threshold concerns 05, and leaves 06 behind until it is resumed
    assert runner.main(["--name", "smoke", "--only", "5", "--set", "threshold_policy=youden"]) == 0
    assert "youden" in (folder / "metrics.json").read_text(encoding="utf-8")
    assert record_of(house)["parameters"]["image_size"] == 96
    assert statuses(house) == {"01": "done", "02": "done", "05": "done", "06": "outdated"}
    assert runner.main(["--name", "smoke", "--resume"]) == 0
    assert set(statuses(house).values()) == {"done"}
    said = capsys.readouterr().out
    assert "06_grad_cam         runs: its settings changed and an earlier notebook or its result changed" in said
    assert '{"policy": "youden"}' in said

    # a page that is gone is part of the notebook that is not done; what follows has not changed
    (folder / "02_preprocessing.html").unlink()
    assert runner.main(["--name", "smoke", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "runs: 02_preprocessing.html is missing" in said
    assert said.count("skipped") == 3

    shutil.copy(folder / "index.html", house / "old.html")
    for notebook in config.NOTEBOOKS.glob("0[256]*"):
        notebook.unlink()
    assert runner.main(["--profile", "smoke"]) == 0
    aside = [path for path in (house / "reports").iterdir() if re.fullmatch(r"smoke\.\d{8}-\d{6}", path.name)]
    assert (aside[0] / "index.html").read_bytes() == (house / "old.html").read_bytes()
    assert "moved aside to smoke." in capsys.readouterr().out


def test_failing_cell_stops_the_run_and_is_shown(house, capsys):
    broken = config.NOTEBOOKS / "02_preprocessing.ipynb"
    write_notebook(broken, BOOT, "# first\ndef shout(text):\n    raise KeyError(f'<b>{text}</b>')\nshout('here')", "1")
    assert runner.main(["--profile", "smoke"]) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("02_preprocessing stopped at cell 3 (def shout(text):): KeyError: '<b>here</b>'")
    assert err.rstrip().endswith("python -m helpers.run --name smoke --resume")
    assert "05_evaluation" not in out
    assert statuses(house) == {"01": "done", "02": "failed", "05": "pending", "06": "pending"}
    page = (house / "reports/smoke/02_preprocessing.html").read_text(encoding="utf-8")
    assert "ansi-red-fg" in page
    assert 'id="cell-3"' in page
    assert "<b>here" not in page
    assert "encountered an exception" not in page
    assert "papermill-error" not in (house / "reports/smoke/02_preprocessing.ipynb").read_text(encoding="utf-8")
    index = (house / "reports/smoke/index.html").read_text(encoding="utf-8")
    assert "02_preprocessing stopped" in index
    assert "&lt;b&gt;here" in index

    write_notebook(broken, BOOT, "raise config.InputError('there is one class only: add NORMAL.')")
    assert runner.main(["--profile", "smoke", "--resume"]) == 1
    out, err = capsys.readouterr()
    assert "cell 3 (raise config.InputError" in err
    assert "): there is one class only: add NORMAL. See " in err
    assert "01_eda              skipped" in out

    write_notebook(broken, "import os", "os._exit(9)")
    assert runner.main(["--profile", "smoke", "--resume"]) == 1
    assert "cell 3 (os._exit(9)): the kernel died" in capsys.readouterr().err


def test_changed_setting_is_named_and_only_what_depends_on_it_runs(house, capsys):
    for stem in ("05_evaluation", "06_grad_cam"):
        (config.NOTEBOOKS / f"{stem}.ipynb").unlink()
    assert runner.main(["--profile", "smoke"]) == 0
    capsys.readouterr()
    assert runner.main(["--profile", "smoke", "--resume", "--set", "rotation=30"]) == 0
    said = capsys.readouterr().out
    assert "01_eda              skipped" in said
    assert "02_preprocessing    runs: its settings changed (rotation 15.0 -> 30.0)" in said
    source = config.NOTEBOOKS / "01_eda.ipynb"
    write_notebook(source, BOOT, STAGES["01_eda"] + "\nprint('new')")
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "01_eda              runs: the notebook's code changed" in said
    assert "02_preprocessing    skipped" in said  # the manifest is what it was
    (house / "reports/smoke/splits.csv").write_text("half", encoding="utf-8")
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    assert "02_preprocessing    runs: splits.csv is missing or was changed" in capsys.readouterr().out


def test_changed_helpers_are_named_and_cost_no_training(house, capsys, monkeypatch):
    for stem in ("02_preprocessing", "05_evaluation", "06_grad_cam"):
        (config.NOTEBOOKS / f"{stem}.ipynb").unlink()
    monkeypatch.setattr(sources, "PACKAGE", house / "helpers")
    for name, text in {
        "config": "import os",
        "a": '"""One."""\nfrom helpers.b import x',
        "b": "from helpers import wing",
        "wing/__init__": "from helpers.wing.room import y",
        "wing/room": "y = 1",
        "wing/other": "z = 1",
        "c": "",
    }.items():
        (house / "helpers" / "wing").mkdir(exist_ok=True, parents=True)
        (house / "helpers" / f"{name}.py").write_text(text)
    write_notebook(config.NOTEBOOKS / "01_eda.ipynb", BOOT, "if False:\n    from helpers import a", STAGES["01_eda"])
    assert runner.main(["--profile", "smoke"]) == 0
    assert set(record_of(house)["notebooks"]["01_eda"]["helpers"]) == {
        "config.py",
        "a.py",
        "b.py",
        "wing/__init__.py",
        "wing/room.py",
    }
    (house / "helpers" / "a.py").write_text('"""Another."""\nfrom helpers.b import x  # a comment')
    (house / "helpers" / "c.py").write_text("print()")
    capsys.readouterr()
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    assert "Code has changed" not in (said := capsys.readouterr().out)
    assert "01_eda              skipped" in said
    (house / "helpers" / "wing" / "room.py").write_text("y = 2")
    before = state_of(house / "reports" / "smoke")
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "01_eda              skipped" in said
    assert "helpers/wing/room.py since 01\n--from 01 runs them again" in said
    assert state_of(house / "reports" / "smoke") == before
    assert runner.main(["--name", "smoke", "--from", "01"]) == 0
    assert "helpers/wing/room.py" not in capsys.readouterr().out


def test_refusals_are_one_sentence(house, capsys):
    assert "'image_size'" in refusal(capsys, "--set", "image_sise=64")
    assert "NAME=VALUE" in refusal(capsys, "--set", "seed")
    assert "--help" in refusal(capsys, "--sed", "1")
    assert "invalid choice" in refusal(capsys, "--profile", "demmo")
    assert "--profile" in refusal(capsys, "--set", "profile=smoke")
    assert "folder" in refusal(capsys, "--name", "../out")
    assert "no notebook '09'" in refusal(capsys, "--from", "09")
    assert "run it from 01" in refusal(capsys, "--only", "05")
    assert "--from 05" in refusal(capsys, "--set", "model=somewhere")
    assert "run it from 01" in refusal(capsys, "--from", "02", "--set", "model=somewhere")
    assert "make data" in refusal(capsys, "--profile", "chest_xray", "--data", str(house / "nowhere"))
    assert "no model.json" in refusal(capsys, "--from", "05", "--set", f"model={house}")
    write_notebook(config.NOTEBOOKS / "03_training.ipynb")
    assert "weights=abc" in refusal(capsys, "--set", "weights=abc")
    assert not any(path.is_dir() for path in (house / "reports").iterdir())


def test_dataset_is_checked_before_anything_runs(house, capsys):
    data = house / "data"
    (data / "train" / "NORMAL").mkdir(parents=True)
    (data / "train" / "NORMAL" / "a.png").touch()
    assert "no image in train/PNEUMONIA" in refusal(capsys, "--profile", "chest_xray", "--data", str(data))
    (data / "train" / "pneumonia").mkdir()
    (data / "train" / "pneumonia" / "b.png").touch()
    args = plan.parse(["--profile", "chest_xray", "--data", str(data)])
    wanted = plan.make_plan(args, "chest_xray")
    plan.check_inputs(wanted.settings, wanted.todo)
    args = plan.parse(["--data", str(data)])
    assert plan.make_plan(args, "demo").settings.phantoms == 0  # a folder that was named is read, not drawn into


def test_existing_run_refuses_what_it_cannot_take_back(house, capsys):
    recorded_run(house)
    assert "--from 01" in refusal(capsys, "--name", "smoke", "--only", "05", "--set", "seed=2")
    for resumed in ([], ["--resume"]):
        words = ["--name", "smoke", "--from", "05", *resumed, "--set", "validation_fraction=0.3"]
        assert "use --from 02" in refusal(capsys, *words)
    assert "profile smoke" in refusal(capsys, "--name", "smoke", "--profile", "demo", "--resume")
    for words in (["--from", "05", "--set", "model=m", "--data", str(house)], ["--only", "05", "--set", "model=m"]):
        assert "a model of its own; give this evaluation its own --name" in refusal(capsys, "--name", "smoke", *words)
    recorded_run(house, "saved", model="m", data="d")
    said = refusal(capsys, "--name", "saved", "--only", "05", "--data", str(house))
    assert "on another dataset" in said
    args = plan.parse(["--name", "smoke", "--from", "05", "--set", "image_size=64"])  # what it is already
    assert [path.stem for path in plan.make_plan(args, "smoke").todo] == ["05_evaluation", "06_grad_cam"]
    (house / "reports/smoke/run.json").write_text("{", encoding="utf-8")
    assert "run.json" in refusal(capsys, "--name", "smoke", "--only", "05")
    wanted = plan.make_plan(plan.parse(["--profile", "smoke", "--resume"]), "smoke")
    assert len(wanted.todo) == 4


def test_what_a_new_run_reads_is_not_moved_aside_with_the_old_one(house, capsys):
    recorded_run(house)
    (house / "reports/smoke/model").mkdir()
    (house / "reports/smoke/model/model.json").write_text("{}", encoding="utf-8")
    words = ["--profile", "smoke", "--set", f"weights={house / 'reports/smoke/model/model.json'}"]
    assert "give it another --name" in refusal(capsys, *words)
    (config.NOTEBOOKS / "02_preprocessing.ipynb").write_text("{", encoding="utf-8")
    assert "cannot be read as a notebook" in refusal(capsys, "--profile", "smoke")
    assert [path.name for path in (house / "reports").iterdir() if path.is_dir()] == ["smoke"]


def test_metrics_are_those_of_a_run_only_while_what_they_come_from_is(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    entries = {stem: {"status": "done"} for stem in ("03_training", "04_fine_tuning", "05_evaluation", "06_grad_cam")}
    entries["05_evaluation"]["wrote"] = {"metrics.json": provenance.sha256(tmp_path / "metrics.json")}

    def missing(**statuses: str) -> list[str]:
        changed = {s: entry | {"status": statuses.get(s[3:], entry["status"])} for s, entry in entries.items()}
        return state.unevaluated({"notebooks": changed}, tmp_path)

    assert missing() == missing(fine_tuning="outdated", grad_cam="failed") == []  # by its code
    entries["04_fine_tuning"]["why"] = f"{state.REASONS['settings']} and more"
    assert missing(fine_tuning="outdated") == ["04_fine_tuning"]
    entries["04_fine_tuning"]["why"] = ""
    assert missing(training="interrupted", fine_tuning="pending") == ["03_training", "04_fine_tuning"]
    assert missing(evaluation="outdated") == ["05_evaluation"]
    assert state.evaluated({"notebooks": entries}, tmp_path)
    assert not state.evaluated({"notebooks": {"03_training": {"status": "done"}}}, tmp_path)
    (tmp_path / "metrics.json").write_text('{"by": "hand"}')
    assert missing() == ["05_evaluation"]


def test_phantoms_are_phantoms_wherever_they_lie(house, tmp_path):
    for folder in ("train/NORMAL", "train/PNEUMONIA"):
        (tmp_path / "d" / folder).mkdir(parents=True)
        (tmp_path / "d" / folder / "1.png").touch()
    (tmp_path / "d/phantoms.json").write_text('{"patients": 40, "seed": 1, "version": 2}')
    for profile in ("demo", "chest_xray"):
        wanted = plan.make_plan(plan.parse(["--profile", profile, "--data", str(tmp_path / "d")]), "x")
        plan.check_inputs(wanted.settings, wanted.todo)
        assert wanted.settings.phantoms == 40
        assert config.make_settings(profile, {"data": tmp_path / "d"}).phantoms == 40
        assert config.make_settings(profile, provenance.changed(wanted.settings)) == wanted.settings
        record = {"parameters": asdict(wanted.settings)}
        assert report.of_phantoms(record, tmp_path)
    words = ["--profile", profile, "--data", str(tmp_path / "d"), "--set", "phantoms=0"]
    named = plan.make_plan(plan.parse(words), "x").settings
    assert config.make_settings(profile, provenance.changed(named)) == named
    assert named.phantoms == 0
    before = state.dataset_hash(wanted.settings)
    (tmp_path / "d/train/NORMAL/.DS_Store").touch()
    (tmp_path / "d/train/NORMAL/.checkpoints").mkdir()
    (tmp_path / "d/train/NORMAL/.checkpoints/a.png").touch()
    assert state.dataset_hash(wanted.settings) == before
    (tmp_path / "d/train/NORMAL/a.png").touch()
    assert state.dataset_hash(wanted.settings) != before


def test_code_has_one_fingerprint_under_every_python(tmp_path):
    write_notebook(tmp_path / "01_x.ipynb", "def f(a: int = 1) -> str:\n    return f'{a!r}'  # remark", "x = [1, *()]")
    listed = storage.fingerprint(sources.of_notebook(tmp_path / "01_x.ipynb"))
    assert listed == "bb56d466c3c8ec46"
    write_notebook(tmp_path / "01_x.ipynb", "def f(a: int = 2) -> str:\n    return f'{a!r}'  # remark", "x = [1, *()]")
    assert storage.fingerprint(sources.of_notebook(tmp_path / "01_x.ipynb")) != listed


def test_the_index_counts_earlier_calls_epochs_and_names_an_unclean_tree(house):
    recorded_run(house)
    folder = house / "reports/smoke"
    epochs = [{"epoch": number, "seconds": 600.0} for number in range(4)]
    storage.write_json(folder / "training/fine_tuning/state.json", {"history": epochs})
    record = json.loads((folder / "run.json").read_text())
    known = {"seconds": 2.0, "commit": "a" * 40}
    record["notebooks"] = {
        "03_training": {"status": "done", "clean": True} | known,
        "04_fine_tuning": {"status": "done", "clean": False} | known,
    }
    record["git"] = {"commit": "a" * 40, "clean": True}
    storage.write_json(folder / "run.json", record)
    text = report.write_index(folder).read_text(encoding="utf-8")
    assert "30 min 02 s" in text
    assert f"{'a' * 40} with uncommitted changes: 04" in read_page(text).get_text()
    for entry in record["notebooks"].values():
        entry["clean"] = True
    storage.write_json(folder / "run.json", record)
    assert "Notebooks ran at" not in report.write_index(folder).read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="closed pipes")
def test_nobody_reading_what_a_run_says_ends_it_quietly(house):
    process = in_another_process(house, "--profile", "smoke")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
    assert statuses(house)["01"] == "interrupted"


def test_the_index_of_an_evaluation_tells_of_the_model_it_measured(house):
    settings = recorded_run(house, "other", model="m", data="d", threshold_policy="youden")
    folder = house / "reports/other"
    card = {"backbone": "DenseNet121", "sha256": "c" * 64, "threshold": 0.25, "threshold_policy": "sensitivity>=0.9"}
    storage.write_json(folder / "model/model.json", card)
    text = report.write_index(folder).read_text(encoding="utf-8")
    found = read_page(text).get_text()
    for said in ("DenseNet121", "c" * 64, "0.2500, by the policy sensitivity>=0.9", "resamples"):
        assert said in found
    assert settings.backbone not in found
    assert "image_size" not in found


def test_what_a_later_notebook_needs_is_made_again_where_it_is_gone(tmp_path):
    (tmp_path / "model").mkdir()
    for stem in ("02_preprocessing", "04_fine_tuning"):
        for name in (*state.WRITES[stem[:2]], f"{stem}.ipynb", f"{stem}.html"):
            (tmp_path / name).write_text(name)
        entry = {"status": "done", "key": "k", "wrote": state.written(tmp_path, stem[:2])}
        assert state.why_not_done(entry, {"key": "k"}, tmp_path, stem) == ""
        for name in state.WRITES[stem[:2]]:
            (tmp_path / name).rename(tmp_path / "gone")
            assert state.why_not_done(entry, {"key": "k"}, tmp_path, stem).startswith(f"{name} is missing")
            (tmp_path / "gone").rename(tmp_path / name)
    (tmp_path / "model/model.json").write_text("with a threshold, by 05")
    assert state.why_not_done(entry, {"key": "k"}, tmp_path, stem) == ""
    (tmp_path / "model/model.keras").write_text("another")
    assert state.why_not_done(entry, {"key": "k"}, tmp_path, stem).startswith("model/model.keras")


def test_a_recorded_output_that_is_no_longer_owed_is_not_missed(tmp_path):
    stem = "02_preprocessing"
    for name in (*state.WRITES["02"], f"{stem}.ipynb", f"{stem}.html"):
        (tmp_path / name).write_text(name)
    entry = {"status": "done", "key": "k", "wrote": state.written(tmp_path, "02") | {"once.csv": "0" * 64}}
    assert state.why_not_done(entry, {"key": "k"}, tmp_path, stem) == ""


def test_a_kernel_that_dies_while_it_starts_is_said_in_words(house, monkeypatch, capsys):
    def dies(source, target, *_, **__):
        notebook = nbformat.read(source, as_version=4)
        for cell in notebook.cells:
            cell.metadata["papermill"] = {"start_time": None}
        nbformat.write(notebook, target)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill.papermill, "execute_notebook", dies)
    assert runner.main(["--profile", "smoke"]) == 1
    assert "RuntimeError: Kernel died before replying to kernel_info." in capsys.readouterr().err
    assert statuses(house)["01"] == "failed"


def test_saved_model_on_another_folder(house):
    model, data = house / "model", house / "data"
    model.mkdir()
    (data / "test" / "NORMAL").mkdir(parents=True)
    (data / "test" / "NORMAL" / "a.jpeg").touch()
    (model / "model.json").write_text("{}", encoding="utf-8")
    words = ["--name", "other", "--from", "05", "--set", f"model={model}", "--data", str(data)]
    wanted = plan.make_plan(plan.parse(words), "other")
    plan.check_inputs(wanted.settings, wanted.todo)
    assert [path.name[:2] for path in wanted.notebooks] == ["05", "06"]
    repeat = provenance.command("other", wanted.settings, "05")
    assert repeat == f"python -m helpers.run --profile demo --name other --data {data} --from 05 --set model={model}"


@pytest.mark.parametrize("recipe", config.RECIPES)
@pytest.mark.parametrize("profile", config.PROFILES)
def test_a_notebook_is_given_all_that_makes_the_settings(profile, recipe):
    for usual in config.PROFILES:  # what is usual elsewhere is said, too
        given = asdict(config.make_settings(usual)) | {"recipe": recipe, "seed": 3}
        settings = config.make_settings(profile, {n: v for n, v in given.items() if n not in ("profile", "data")})
        assert config.make_settings(profile, provenance.changed(settings)) == settings


def test_paths_are_recorded_relative_and_given_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "ROOT", tmp_path / "clone")
    (tmp_path / "w.h5").touch()
    assert provenance.portable("data", "images") == "../images"
    assert provenance.portable("weights", "w.h5") == "../w.h5"
    assert provenance.portable("weights", "imagenet") == "imagenet"
    assert provenance.absolute("data", "../images") == str(tmp_path / "images")
    assert provenance.absolute("weights", "none") == "none"
    for word in config.WEIGHTS:  # means no folder that happens to be called so
        (tmp_path / "clone" / word).mkdir(parents=True, exist_ok=True)
        (Path.cwd() / word).mkdir(exist_ok=True)
        assert provenance.portable("weights", word) == provenance.absolute("weights", word) == word
    assert provenance.absolute("model", "") == ""


def test_a_run_in_use_is_refused(house, capsys):
    config.REPORTS.mkdir()
    with filelock.FileLock(config.REPORTS / ".smoke.lock"):
        assert "in use" in refusal(capsys, "--profile", "smoke", "--resume")


def in_another_process(house: Path, *arguments: str) -> subprocess.Popen:
    code = (
        "import signal, sys; from pathlib import Path; from helpers import config\n"
        "from helpers.run import runner\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "config.NOTEBOOKS, config.REPORTS = Path(sys.argv[1], 'notebooks'), Path(sys.argv[1], 'reports')\n"
        "sys.exit(runner.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(house), *arguments]
    return subprocess.Popen(command, cwd=config.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen, wanted: str) -> None:
    for line in process.stdout:
        if wanted in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_stopped_from_outside_then_resumed(house, capsys, how):
    slow = (
        "import time, os\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60 if not (folder / 'go').exists() else 0)"
    )
    write_notebook(config.NOTEBOOKS / "02_preprocessing.ipynb", BOOT, slow)
    for stem in ("05_evaluation", "06_grad_cam"):
        (config.NOTEBOOKS / f"{stem}.ipynb").unlink()
    process = in_another_process(house, "--profile", "smoke")
    wait_for_line(process, "    pid")
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    if how == "SIGKILL":
        deadline = time.monotonic() + 10
        while not (house / "reports/.smoke.kernel").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[how]
    if how != "SIGKILL":
        assert err.strip().splitlines() == [
            "Stopped; the kernel too. Go on with: python -m helpers.run --name smoke --resume"
        ]
        assert not any(child.is_running() for child in kernels)
        assert statuses(house)["02"] == "interrupted"
    (house / "reports/smoke/go").touch()
    assert runner.main(["--profile", "smoke", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "01_eda              skipped" in said
    assert "02_preprocessing    runs: it was interrupted" in said
    assert set(statuses(house).values()) == {"done"}
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in kernels)
    assert not [path.name for path in (house / "reports/smoke").iterdir() if "part" in path.name]


def test_stopped_before_there_is_a_run_the_same_command_is_named_again(house, capsys, monkeypatch):
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(state, "dataset_hash", interrupted)
    words = ["--profile", "smoke", "--name", "mine", "--set", "seed=7"]
    assert runner.main(words) == 130
    assert f"Start again with: python -m helpers.run {' '.join(words)}" in capsys.readouterr().err


def test_a_run_from_before_a_setting_keeps_doing_without_it():
    recorded = asdict(config.make_settings("chest_xray", {"seed": 3}))
    assert recorded.pop("frame") > 0
    settings = state.recorded_settings({"parameters": recorded})
    assert settings == config.make_settings("chest_xray", {"seed": 3, "frame": 0})
    assert provenance.changed(settings) == {"seed": 3, "frame": 0}


def test_a_setting_added_later_outdates_nothing(house, monkeypatch):
    def keys() -> dict:
        notebooks = sorted(config.NOTEBOOKS.glob("*.ipynb"))
        return state.inputs(notebooks, config.make_settings("smoke"), house / "reports/smoke", "", {})

    now = keys()
    monkeypatch.setattr(state, "FIELDS", {n: f for n, f in config.FIELDS.items() if n not in ("frame", "model")})
    assert keys() == now


def test_an_image_replaced_by_one_of_equal_size_is_noticed(tmp_path):
    file = tmp_path / "train" / "NORMAL" / "a.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    settings = config.make_settings("chest_xray", {"data": str(tmp_path)})
    before = state.dataset_hash(settings)
    assert state.dataset_hash(settings) == before
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 1))  # some file systems count in seconds
    assert state.dataset_hash(settings) != before


def test_a_model_without_a_threshold_is_refused_before_anything_is_read(house, capsys, tmp_path):
    for folder in ("test/NORMAL", "test/PNEUMONIA", "head"):
        (tmp_path / "d" / folder).mkdir(parents=True)
    (tmp_path / "d/head/model.json").write_text('{"threshold": null}')
    words = ["--from", "05", "--data", str(tmp_path / "d"), "--set", f"model={tmp_path / 'd/head'}", "--name", "other"]
    assert "has no threshold yet" in refusal(capsys, *words)


def test_memory_is_private_and_strays_are_ended(tmp_path):
    note = tmp_path / "note"
    with papermill.watched(note) as memory:
        waits = "x = b'1' * 200_000_000; import time; time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", waits])
        deadline = time.monotonic() + 20
        while memory["peak"] < 200_000_000 and time.monotonic() < deadline:
            time.sleep(0.1)
        found = note.read_text(encoding="utf-8")
    assert 200_000_000 < memory["peak"] < 300_000_000
    assert not psutil.pid_exists(child.pid)
    assert not note.exists()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note.write_text(json.dumps([[other.pid, psutil.Process(other.pid).create_time()]]), encoding="utf-8")
    papermill.stop_stray(note)
    assert not psutil.pid_exists(other.pid)
    note.write_text(found, encoding="utf-8")  # gone, or its number is another's by now
    papermill.stop_stray(note)


def page_of(tmp_path: Path, cells: list, **options) -> str:
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "03_training.ipynb")
    report.render(tmp_path / "03_training.ipynb", tmp_path / "03_training.html", **options)
    return (tmp_path / "03_training.html").read_text(encoding="utf-8")


def read_page(text: str) -> BeautifulSoup:
    """What a browser without scripts makes of a page."""
    return BeautifulSoup(text, "html.parser")


WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "7"}}


def test_a_page_fetches_and_runs_nothing(tmp_path):
    output = nbformat.v4.new_output
    hostile = "<script>alert(1)</script><style>@import 'x'</style><table><tr><td>x</td></tr></table>"
    outputs = [
        output("stream", name="stdout", text="10%\r"),
        output("stream", name="stdout", text="100%\nepoch <1>\n"),
        output("stream", name="stderr", text="a warning"),
        output("display_data", WIDGET | {"text/plain": "Box()", "text/html": "<i>a picture instead</i>"}),
        output("display_data", WIDGET | {"text/plain": "Slider()"}),
        output("display_data", {"text/html": hostile}),
        output("display_data", {"image/png": "iVBORw0KGgo=\n"}, metadata={"image/png": {"width": 300, "height": 9}}),
        output("error", ename="ValueError", evalue="<bad>", traceback=["\x1b[31mValueError\x1b[0m: <bad>"]),
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# Training <3\n\nWhy."),
        nbformat.v4.new_code_cell("print('<hello>')", outputs=outputs),
    ]
    record = {"run": "a&b", "parameters": {"phantoms": 3}, "command": "python -m helpers.run"}
    text = page_of(tmp_path, cells, record=record)
    assert not re.search(r"<script|<link\b|(src|href)=\"(https?:)?//|@import|url\(", text)
    page = read_page(text)
    assert page.find("meta", attrs={"http-equiv": True})["content"].startswith("default-src 'none'")
    said = page.main.get_text()
    for shown in (
        "100%\nepoch <1>",
        "print('<hello>')",
        "a picture instead",
        "Interactive",
        "ValueError: <bad>",
        "a&b",
    ):
        assert shown in said
    for hidden in ("10%\r", "a warning", "Slider", "Box()", "alert(1)"):
        assert hidden not in said
    image = page.main.img
    assert (image["src"], image["width"], image["height"]) == ("data:image/png;base64,iVBORw0KGgo=", "300", "9")
    assert image["alt"]


def test_title_and_purpose_of_a_notebook_are_plain_text():
    cells = [nbformat.v4.new_markdown_cell("# 1. A *first* look\n\nWhat\nit is `for`.\n\n## Part")]
    assert report.opening(nbformat.v4.new_notebook(cells=cells)) == ("1. A first look", "What it is for.")
    assert report.opening(nbformat.v4.new_notebook()) == ("", "")


def test_a_page_says_whether_its_run_is_of_phantoms(tmp_path):
    for phantoms in (3, 0):
        page = page_of(tmp_path, [], record={"parameters": {"phantoms": phantoms}})
        assert (report.BANNER in page) == (phantoms > 0)


@pytest.mark.parametrize("trap", ["none", *config.TRAPS])
def test_a_page_of_a_run_with_a_trap_says_so_at_its_top(tmp_path, trap):
    top = page_of(tmp_path, [], record={"parameters": {"phantoms": 3, "traps": trap}}).split("<main")[0]
    assert ("Broken on purpose" in top) == (trap != "none")
    assert [name for name, text in config.TRAPS.items() if text in top] == [trap] * (trap != "none")


def test_a_page_leads_to_its_parts_and_to_the_other_pages(tmp_path):
    prose = (
        "# Training\n\n## Same\n\n## Same\n\n### *Finer*\n\n[next](04_fine_tuning.ipynb) [else](https://a.org/b.ipynb)"
    )
    pages = [("02_x", "Two <"), ("03_training", "Three"), ("04_fine_tuning", "Four")]
    page = read_page(page_of(tmp_path, [nbformat.v4.new_markdown_cell(prose)], pages=pages))
    links = {link.get_text(): link["href"] for link in page.select(".side a")}
    assert links == {"Index": "index.html", "Two <": "02_x.html", "Same": "#same-2", "Finer": "#finer"} | {
        "Four": "04_fine_tuning.html"
    }
    places = [link["href"][1:] for link in page.select("main .small-toc a")]
    assert places == ["same", "same-2", "finer"]
    assert [page.find(id=place).get_text() for place in places] == ["Same", "Same", "Finer"]
    assert [link["href"] for link in page.select(".md a")] == ["04_fine_tuning.html", "https://a.org/b.ipynb"]
    assert page.find(rel="prev")["href"] == "02_x.html"
    assert page.find(rel="next")["href"] == "04_fine_tuning.html"


def test_a_page_marks_the_cell_that_failed_and_opens_its_code(tmp_path):
    given = nbformat.v4.new_code_cell("# Parameters\nrun = 'x'", metadata={"tags": ["injected-parameters"]})
    cells = [nbformat.v4.new_code_cell("1"), given, nbformat.v4.new_code_cell("2"), nbformat.v4.new_code_cell(" ")]
    failure = {"cell": 2, "message": "<no>", "advice": "mend it"}
    page = read_page(page_of(tmp_path, cells, failure=failure))
    (failed,) = page.select(".failed")
    assert failed["id"] == "cell-2"
    assert [details.has_attr("open") for details in page.select("details.code")] == [False, False, True]
    alert = page.find(role="alert")
    assert "stopped at cell 2" in alert.get_text()
    assert "<no>" in alert.get_text()
    assert alert.a["href"] == "#cell-2"
    assert "parameters given to this run" in page.get_text()


def test_tables_scroll_and_columns_of_numbers_stand_on_the_right(tmp_path):
    rows = "<tr><th>name</th><th>n</th></tr><tr><td>a1</td><td>1,341</td></tr><tr><td>2</td><td>–</td></tr>"
    spanned = '<tr><th rowspan="2">a</th><td>x</td><td>1</td></tr><tr><td>y</td><td>-2.5%</td></tr>'
    html = nbformat.v4.new_output("display_data", {"text/html": f"<table>{rows}</table><table>{spanned}</table>"})
    cells = [nbformat.v4.new_code_cell("1", outputs=[html]), nbformat.v4.new_markdown_cell("| a |\n|---|\n| 7 |")]
    page = read_page(page_of(tmp_path, cells))
    right = [cell.get_text().strip() for cell in page.select("table .n")]
    assert right == ["n", "1,341", "–", "1", "-2.5%", "a", "7"]
    assert all(table.find_parent(class_="wide") for table in page.select("main table"))


def test_paths_of_this_machine_stay_out_of_pages(tmp_path):
    place = "/home/ann/clone/data/x.png and /home/ann/y"
    outputs = [
        nbformat.v4.new_output("stream", text=f"read {place}"),
        nbformat.v4.new_output("display_data", {"text/html": f"<b>{place}</b>", "text/plain": place}),
        nbformat.v4.new_output("display_data", {"text/markdown": place}),
        nbformat.v4.new_output("display_data", {"image/png": "abc/home/ann/"}),  # no path, though it looks like one
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=[place]),
    ]
    cell = nbformat.v4.new_code_cell("x = '/home/ann/clone/'", outputs=outputs)
    page = page_of(tmp_path, [cell], hide={"/home/ann/": "~/", "/home/ann/clone/": ""})
    assert read_page(page).get_text().count("data/x.png and ~/y") == 4
    assert "base64,abc/home/ann/" in page
    assert page.count("/home/ann") == 1


def test_index_shows_numbers_and_escapes(tmp_path):
    number = {"value": 0.9, "low": 0.85, "high": 0.93}
    part = {"n": 624, "prevalence": 0.625, "threshold": 0.31, "threshold_policy": "sensitivity>=0.97"}
    part |= {"confusion": {"tp": 1, "fp": 2, "fn": 3, "tn": 4}, "auc": number, "npv": dict.fromkeys(number)}
    part |= {"by_subtype": {"virus": {"sensitivity": number}}}
    storage.write_json(tmp_path / "metrics.json", {"test": part, "validation": part})
    storage.write_json(tmp_path / "explanations.json", {"summary": {"pointing_game": number, "chance": 0.2}})
    entry = {"title": "<Five>", "purpose": "a < b", "status": "outdated", "seconds": 61.0, "peak_memory": 1.2e9}
    parameters = {"phantoms": 5, "data": "<x>"}
    notebooks = {"03_training": {"title": "Three", "status": "done", "commit": "c"}}  # from before locks were recorded
    notebooks["04_fine_tuning"] = {"title": "Four", "status": "done", "commit": "c", "lock": "a" * 64}
    notebooks["05_evaluation"] = entry | {"commit": "c", "lock": "b" * 64}
    record = {"run": "r", "profile": "smoke", "notebooks": notebooks, "parameters": parameters}
    storage.write_json(tmp_path / "run.json", record | {"changed": ["data"], "command": "python 'a b'"})
    page = report.write_index(tmp_path).read_text(encoding="utf-8")
    for wanted in (
        "0.900",
        "0.850 to 0.930",
        "624",
        "sensitivity&gt;=0.97",
        "Pointing game",
        "&lt;Five&gt;",
        "&lt;x&gt;",
    ):
        assert wanted in page
    locks = read_page(page).find("th", string="Notebooks ran with").find_next("td").get_text()
    assert locks == f"{'a' * 64}: 04; {'b' * 64}: 05; unknown: 03"
    for wanted in ("61 s", "1.2 GB", "has to run again", report.BANNER, "python &#39;a b&#39;", "Virus · Sensitivity"):
        assert wanted in page
    assert not re.search(r"<script|https?://|<Five>|<x>", page)
    (tmp_path / "empty").mkdir()
    assert report.write_index(tmp_path / "empty").exists()


def test_human_numbers():
    assert [report.human_time(s) for s in (0.4, 41.2, 200, 4000)] == ["0.4 s", "41 s", "3 min 20 s", "1 h 06 min"]
    assert [report.human_bytes(b) for b in (41e6, 1.2e9)] == ["41 MB", "1.2 GB"]
    assert report.human_value({"value": None, "low": None, "high": None}) == "–"
    assert [report.human_value(value) for value in (True, False, None, 12_345)] == ["yes", "no", "–", "12,345"]


def test_run_folders_lie_elsewhere_and_pages_do_not_say_where(house, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XRAY_REPORTS", "")  # what the option sets goes with the test
    for old in config.NOTEBOOKS.glob("*.ipynb"):
        old.unlink()
    cell = "from helpers import config\nsettings, folder = config.notebook_settings(globals())\nprint(folder)"
    write_notebook(config.NOTEBOOKS / "01_eda.ipynb", cell, "assert (folder / 'mended').exists()")
    elsewhere = tmp_path / "other disk"
    words = ["--profile", "smoke", "--reports", str(elsewhere)]
    assert runner.main(words) == 1
    assert f"--name smoke --resume --reports '{elsewhere}'" in capsys.readouterr().err
    (elsewhere / "smoke" / "mended").touch()
    assert runner.main([*words, "--resume"]) == 0
    page = (elsewhere / "smoke" / "01_eda.html").read_text(encoding="utf-8")
    assert "reports/smoke" in page
    assert str(elsewhere) not in page
    assert not (house / "reports").exists()
