"""Publishing a model: what goes into data/pretrained, what its card says, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import config, dataset, evaluation, model, storage
from helpers.config import InputError
from helpers.evaluation import measure
from helpers.run import publish


@pytest.fixture
def run(planted, tmp_path, monkeypatch):
    """A run folder with an evaluated model, as notebook 05 leaves it."""
    monkeypatch.setattr(config, "REPORTS", tmp_path / "reports")
    folder = tmp_path / "reports" / "small"
    (folder / "model").mkdir(parents=True)
    weights = str(tmp_path / "secret folder" / "x.weights.h5")
    settings = config.make_settings("chest_xray", {"weights": weights, "seed": 3})
    films = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    labels, probabilities = np.arange(40) % 2, np.linspace(0, 1, 40)
    found = measure(labels, probabilities, 0.4)
    part = {name: {"value": value, "low": 0.1, "high": 0.9} for name, value in found.items()}
    part |= {"n": 40, "prevalence": 0.5, "confusion": {"tp": 12, "fp": 12, "fn": 8, "tn": 8}, "by_subtype": {}}
    card = model.make_card(settings, "f" * 64, public=True)
    card |= {"threshold": 0.4, "threshold_policy": "0.4", "uncertain": [0.3, 0.5]}
    card |= {
        "calibration": {"method": "none", "slope": 1, "intercept": 0},
        "metrics": {"validation": part, "test": part},
    }
    model.save(planted, folder / "model", card)
    model.ood.save(model.ood.fit(films, films), folder / "model")
    model.write_card(folder / "model", model.read_card(folder / "model"))
    parameters = {name: getattr(settings, name) for name in config.FIELDS}
    command = f"python -m helpers.run --name small --set weights='{weights}' seed=3"
    record = {"format": 1, "parameters": parameters, "command": command, "git": {"commit": "of a later look"}}
    stems = ("03_training", "04_fine_tuning", "05_evaluation", "06_grad_cam")
    commits = ("abc123", "abc123", "def456", "def456")
    record["notebooks"] = {s: {"status": "done", "commit": c} for s, c in zip(stems, commits, strict=True)}
    rows = [f"test/{i}.png,{'test' if i % 4 else 'validation'},NORMAL,{p}" for i, p in enumerate(probabilities)]
    (folder / "predictions.csv").write_text("\n".join(["path,split,label,probability", *rows]) + "\n")
    names = [(("train", "test")[i % 2], f"person{i // 2}_virus") for i in range(40)]
    files = [
        f"{split}/{patient}_{i}.png,{split},{patient},{'' if i else 'unreadable'},{224 if i else 0},224,{i == 0}"
        for i, (split, patient) in enumerate(names)
    ]
    (folder / "manifest.csv").write_text("\n".join(["path,split,patient,why,width,height,excluded", *files]) + "\n")
    given = [f"test/{i}.png,{('train', 'validation', 'test')[i % 3]},NORMAL,p{i // 6},virus" for i in range(40)]
    (folder / "splits.csv").write_text("\n".join(["path,split,label,patient,subtype", *given]) + "\n")
    summary = {
        "images scored": 40,
        "activation in the outer tenth, Grad-CAM": 0.25,
        "AUC, edges": part["auc"],
        "none": None,
    }
    (folder / "explanations.json").write_text(json.dumps({"split": "test", "summary": summary, "shown": []}))
    (folder / "run.json").write_text(json.dumps(record | {"profile": "chest_xray", "run": "small"}))
    return folder


def test_the_model_its_guard_and_a_card_are_put_in_place(run, tmp_path):
    publish.publish("small", tmp_path / "pretrained")
    before, after = (model.read_card(folder) for folder in (run / "model", tmp_path / "pretrained"))
    assert after == before | {"sha256": after["sha256"]}, "packed otherwise"
    text = (tmp_path / "pretrained" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for said in (
        "CC BY 4.0",
        "| commit | abc123 (notebook 03, 04), def456 (notebook 05) |",
        "0.4000",
        "0.3000",
        "| test (n = 40) |",
        "as they are and under 3 draws of the training augmentation",
        "| test | 6 of 30 | 15 of 24 | 15 of 30 | 0 of 0 |",
        "| validation | 2 of 10 | 5 of 8 | 5 of 10 | 0 of 0 |",
        "| train | 14 | 7 | 0.0% |",
        "left out of these counts: 1.\n- A bare patient number is",
        "Of 20 in test, 20 occur in train, too, 20 of them",
        "| activation in the outer tenth, Grad-CAM | 0.25 |",
        "(0.100 to 0.900) |",
        "| none | – |",
        "seed 3, with the settings",
        "not a medical device",
        "copies already resized to 224 x 224 pixels",
    ):
        assert said in text
    assert "--set weights='x.weights.h5' seed=3" in text
    assert str(tmp_path) not in text
    assert "{" not in text


def test_a_published_model_is_measured_anew_from_its_predictions(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "PRETRAINED", tmp_path / "pretrained")
    publish.publish("small", config.PRETRAINED)
    before = {file.name: file.read_bytes() for file in config.PRETRAINED.iterdir()}
    kept = dataset.read_table(config.PRETRAINED / "predictions.csv", "")
    kept["label"] = np.where(kept["probability"] > 0.5, "PNEUMONIA", "NORMAL")
    kept["split"] = np.resize(["test", "validation"], len(kept))
    dataset.write_table(kept, config.PRETRAINED / "predictions.csv")
    assert "Not measured yet." in before["MODEL_CARD.md"].decode("utf-8")
    adults = {"index": ["adults"], "columns": ["images", "uncertain"], "data": [[30, 3]]}
    storage.write_json(config.PRETRAINED / "robustness.json", {"images from elsewhere": adults})
    assert publish.main([]) == 0
    (config.PRETRAINED / "robustness.json").unlink()
    after = {file.name: file.read_bytes() for file in config.PRETRAINED.iterdir()}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"predictions.csv", "model.json", "MODEL_CARD.md"}
    card, text = model.read_card(config.PRETRAINED), after["MODEL_CARD.md"].decode("utf-8")
    part = kept[kept["split"] == "test"]
    assert card["metrics"]["test"] == evaluation.summarise(part, 0.4, "0.4", 1000, 1)
    for row in evaluation.table(card["metrics"]["test"]).itertuples(index=False):
        assert f"\n| {' | '.join(map(str, row))} |\n" in text
    assert text.count("| AUC | 1.000 | ") == 2
    assert "| images from elsewhere | images | uncertain |\n|---|---|---|\n| adults | 30 | 3 |\n" in text
    assert "Not measured yet." not in text
    assert text.count("| test (n = 20) |") == 1
    assert publish._where_rarer(card["metrics"]["test"]) in text


def test_the_card_in_the_clone_is_what_its_predictions_say():
    card = model.read_card(config.PRETRAINED)
    kept = dataset.read_table(config.PRETRAINED / "predictions.csv", "")
    assert set(kept["split"]) == set(card["metrics"]) == {"test", "validation"}
    text = (config.PRETRAINED / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert publish._where_rarer(card["metrics"]["test"]) in text
    for name, part in kept.groupby("split"):
        found = evaluation.summarise(part, card["threshold"], card["threshold_policy"], 1000, 1)
        assert card["metrics"][name] == found
        assert all(
            f"| {' | '.join(map(str, row))} |" in text for row in evaluation.table(found).itertuples(index=False)
        )


@pytest.mark.parametrize("change", [{"phantoms": True}, {"metrics": None}, {"metrics": {"validation": {"n": 3}}}])
def test_what_has_no_test_numbers_of_real_images_is_refused(run, tmp_path, change):
    model.write_card(run / "model", model.read_card(run / "model") | change)
    with pytest.raises(InputError, match="no run on real images"):
        publish.publish("small", tmp_path / "pretrained")
    assert not (tmp_path / "pretrained").exists()


def test_a_model_of_other_images_is_refused_as_the_card_names_public_ones(run, tmp_path):
    model.write_card(run / "model", model.read_card(run / "model") | {"public": False})
    with pytest.raises(InputError, match="not trained on the public dataset"):
        publish.publish("small", tmp_path / "pretrained")


def test_the_evaluation_of_a_saved_model_is_refused(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    record["parameters"]["model"] = "data/pretrained"
    storage.write_json(run / "run.json", record)
    with pytest.raises(InputError, match="small evaluates a saved model: publish the run that trained it"):
        publish.publish("small", tmp_path / "pretrained")
    assert not (tmp_path / "pretrained").exists()


def test_a_run_that_has_to_go_on_is_refused_and_the_old_model_stays(run, tmp_path):
    publish.publish("small", tmp_path / "pretrained")
    before = {file.name: file.read_bytes() for file in (tmp_path / "pretrained").iterdir()}
    record = json.loads((run / "run.json").read_text())
    record["notebooks"]["05_evaluation"]["status"] = "pending"  # as after --from 03 that failed
    (run / "run.json").write_text(json.dumps(record | {"command": "python -m helpers.run --set seed=9"}))
    with pytest.raises(InputError, match="is not finished"):
        publish.publish("small", tmp_path / "pretrained")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "pretrained").iterdir()}


def test_originals_of_many_sizes_are_not_called_copies(run, tmp_path):
    text = (run / "manifest.csv").read_text()
    (run / "manifest.csv").write_text(text.replace("224,224", "300,224", 1))
    publish.publish("small", tmp_path / "pretrained")
    assert "copies already resized" not in (tmp_path / "pretrained" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_model_too_large_for_a_clone_is_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "MOST_BYTES", 1000)
    assert publish.main(["small"]) == 2
    assert "a clone takes" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.keras")

    monkeypatch.setattr(publish, "publish", full)
    assert publish.main(["small"]) == 2
    assert capsys.readouterr().err == "model.keras cannot be read or written: No space left on device.\n"
