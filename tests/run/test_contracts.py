"""What a run leaves behind for people and programs, by name and key; all of it from one smoke run."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image
from sklearn import metrics as sk

from helpers import config, predict
from helpers.run import report
from tests.conftest import Clone, SmokeRun, make_clone
from tests.run.test_notebooks import STEMS

METRICS = {
    "auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "npv",
    "f1",
    "brier",
    "ece",
}
SUMMARY = METRICS | {"n", "patients", "prevalence", "threshold", "threshold_policy", "confusion", "by_subtype"}


def table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, keep_default_na=False)


def load(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def state_of(folder: Path) -> dict:
    """Bytes and time of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def without_stamps(text: str, run: SmokeRun) -> None:
    """Assert that nothing in `text` tells one run, one moment or one machine from another."""
    home = [str(Path.home())] if len(Path.home().parts) > 1 else []  # a container may have / for a home
    for found in (run.name, str(run.clone.root), run.clone.root.parent.name, *home, str(config.ROOT)):
        assert found not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d|reports[/\\]|seconds|started", text)


def test_run_ends_well_and_says_so(smoke):
    assert smoke.done.stdout.rstrip().endswith("index.html")
    for stem in STEMS:
        assert re.search(rf"^{stem} +done  ", smoke.done.stdout, re.MULTILINE)
    assert "Traceback" not in smoke.done.stdout + smoke.done.stderr
    assert "warning" not in smoke.done.stderr.lower()


def test_run_folder_holds_what_others_read(smoke):
    wanted = {"manifest.csv", "splits.csv", "images.npy", "predictions.csv", "metrics.json", "explanations.json"}
    wanted |= {"model", "run.json", "cases.json", "index.html"} | {
        f"{stem}{end}" for stem in STEMS for end in (".ipynb", ".html")
    }
    assert wanted <= {path.name for path in smoke.folder.iterdir()}
    assert not [path for path in smoke.folder.rglob("*") if ".part" in path.name or path.name.startswith("part")]


# CSV


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("manifest.csv", "path split label patient subtype width height sha256 excluded why"),
        ("splits.csv", "path split label patient subtype group"),
        ("predictions.csv", "path split label probability"),
    ],
)
def test_columns_and_order_of_rows(smoke, name, columns):
    text = (smoke.folder / name).read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.splitlines()[0] == columns.replace(" ", ",")
    rows = table(smoke.folder / name)
    assert list(rows["path"]) == sorted(set(rows["path"]))
    assert rows["path"].str.fullmatch(r"(train|val|test)/(NORMAL|PNEUMONIA)/[^\\]+").all()
    assert all((smoke.data / path).is_file() for path in rows["path"])
    without_stamps(text, smoke)


def test_manifest_has_every_file_as_it_is(smoke):
    manifest = table(smoke.folder / "manifest.csv")
    found = {p.relative_to(smoke.data).as_posix() for s in ("train", "test") for p in (smoke.data / s).rglob("*.jpeg")}
    assert set(manifest["path"]) == found
    for row in manifest.itertuples():
        content = (smoke.data / row.path).read_bytes()
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        assert (row.width, row.height) == Image.open(io.BytesIO(content)).size
        assert row.path.split("/")[:2] == [row.split, row.label]
        name = row.path.rsplit("/", 1)[1]
        patient = re.fullmatch(r"(person\d+_(bacteria|virus))_\d+\.jpeg|((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?\.jpeg", name)
        assert row.patient == (patient[1] or patient[3])
        assert row.subtype == (patient[2] or "")
    assert (manifest["excluded"] == (manifest["why"] != "")).all()
    assert manifest["excluded"].any(), "the phantoms hold exact copies"
    assert not manifest.loc[manifest["split"] == "test", "excluded"].any()


def test_splits_share_nothing(smoke):
    manifest, splits = table(smoke.folder / "manifest.csv"), table(smoke.folder / "splits.csv")
    assert list(splits["path"]) == list(manifest.loc[~manifest["excluded"], "path"])
    parts = dict(iter(splits.groupby("split")))
    assert set(parts) == {"train", "validation", "test"}
    digest = manifest.set_index("path")["sha256"]
    sides = [
        (
            set(part["patient"]),
            set(part["group"]),
            {re.search(r"person\d+|IM-\d+", path)[0] for path in part["path"]},
            set(digest[part["path"]]),
        )
        for part in (parts["train"], parts["validation"])
    ]
    assert not any(one & other for one, other in zip(*sides, strict=True))
    assert (parts["test"]["path"].str.startswith("test/")).all()
    assert len(np.load(smoke.folder / "images.npy", mmap_mode="r")) == len(splits)


# metrics.json and predictions.csv


def test_predictions_are_of_validation_and_test(smoke):
    splits, predictions = table(smoke.folder / "splits.csv"), table(smoke.folder / "predictions.csv")
    pd.testing.assert_frame_equal(
        predictions[["path", "split", "label"]],
        splits.loc[splits["split"] != "train", ["path", "split", "label"]].reset_index(drop=True),
    )
    assert predictions["probability"].between(0, 1).all()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_metrics_follow_from_predictions_and_threshold(smoke, split):
    found = load(smoke.folder / "metrics.json")
    assert set(found) == {"validation", "test"}
    summary = found[split]
    assert set(summary) == SUMMARY
    assert all(set(summary[name]) == {"value", "low", "high"} for name in METRICS)
    part = table(smoke.folder / "predictions.csv").query("split == @split")
    splits = table(smoke.folder / "splits.csv").set_index("path").loc[part["path"]]
    truth, score = (part["label"] == "PNEUMONIA").to_numpy(), part["probability"].to_numpy()
    called = score >= summary["threshold"]
    (tn, fp), (fn, tp) = sk.confusion_matrix(truth, called, labels=[False, True])
    assert summary["confusion"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert summary["n"] == sum(summary["confusion"].values()) == len(part)
    assert summary["patients"] == splits["patient"].nunique()
    assert summary["prevalence"] == pytest.approx(truth.mean())
    bins = pd.DataFrame({"bin": np.minimum((score * 10).astype(int), 9), "gap": score - truth}).groupby("bin")["gap"]
    wanted = {
        "auc": sk.roc_auc_score(truth, score),
        "average_precision": sk.average_precision_score(truth, score),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sk.recall_score(truth, called),
        "specificity": sk.recall_score(~truth, ~called),
        "precision": sk.precision_score(truth, called) if called.any() else None,
        "npv": sk.precision_score(~truth, ~called) if not called.all() else None,
        "f1": sk.f1_score(truth, called),
        "brier": sk.brier_score_loss(truth, score),
        "ece": bins.sum().abs().sum() / len(part),
    }
    values = {name: summary[name]["value"] for name in METRICS}
    assert values == pytest.approx(wanted, abs=1e-9)
    for name in METRICS:
        low, high = summary[name]["low"], summary[name]["high"]
        assert (low is None) == (high is None)
        assert low is None or 0 <= low <= high <= 1
    assert summary["auc"]["low"] < summary["auc"]["value"] < summary["auc"]["high"]
    kinds = splits.loc[splits["subtype"] != "", "subtype"]
    assert set(summary["by_subtype"]) == set(kinds) == {"bacteria", "virus"}
    for kind, of in summary["by_subtype"].items():
        use = (splits["subtype"] == kind).to_numpy()
        assert of["n"] == use.sum()
        assert set(of["sensitivity"]) == {"value", "low", "high"}
        assert of["sensitivity"]["value"] == pytest.approx(called[use].mean())


def test_threshold_is_the_highest_that_the_policy_allows_on_validation(smoke):
    summary = load(smoke.folder / "metrics.json")
    assert summary["validation"]["threshold"] == summary["test"]["threshold"]
    assert summary["test"]["threshold_policy"] == "sensitivity>=0.97"
    part, threshold = (
        table(smoke.folder / "predictions.csv").query("split == 'validation'"),
        summary["test"]["threshold"],
    )
    ill = part.loc[part["label"] == "PNEUMONIA", "probability"]
    lowest = part.loc[part["probability"] >= threshold, "probability"].min()
    below = part.loc[part["probability"] < threshold, "probability"].max()
    assert (ill >= threshold).mean() >= 0.97
    assert (ill > lowest).mean() < 0.97, "a threshold above the next score would do as well"
    assert threshold == pytest.approx((lowest + np.nan_to_num(below)) / 2), "midway, so that rounding flips nothing"


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv"])
def test_equal_runs_would_be_equal_bytes(smoke, name):
    text = (smoke.folder / name).read_text(encoding="utf-8")
    without_stamps(text, smoke)
    assert "\r" not in text


def test_other_processor_instructions_change_answers_by_less_than_1e_4(smoke, tmp_path, monkeypatch):
    """What stands for another machine here: the same model and images, computed without oneDNN's instructions."""
    files = sorted(smoke.data.glob("test/*/*.jpeg"))[:16]
    predictor = predict.Predictor.load(config.PRETRAINED)
    here = [predictor.predict(file).probability for file in files]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    words = ["--model", config.PRETRAINED, "--csv", tmp_path / "there.csv", *files]
    assert smoke.clone.python("helpers.predict", *words).returncode == 0
    assert np.abs(table(tmp_path / "there.csv")["probability"].to_numpy() - here).max() < 1e-4


def test_explanations_are_of_what_was_predicted(smoke):
    found = load(smoke.folder / "explanations.json")
    assert set(found) == {"split", "summary", "shown"}
    predictions = table(smoke.folder / "predictions.csv").set_index("path")
    threshold = load(smoke.folder / "metrics.json")["test"]["threshold"]
    assert found["split"] == "test"
    assert found["shown"]
    for shown in found["shown"]:
        row = predictions.loc[shown["path"]]
        assert shown["probability"] == pytest.approx(row["probability"])
        right = (row["probability"] >= threshold) == (row["label"] == "PNEUMONIA")
        assert shown["outcome"] == ("T" if right else "F") + ("P" if row["probability"] >= threshold else "N")
    summary = found["summary"]
    shares = {name: value for name, value in summary.items() if name.startswith("activation ")}
    assert len(shares) == 6, shares  # at the edge: two methods and the even map; inside: two methods and the blind map
    assert all(value is None or 0 <= value <= 1 for value in shares.values())
    for method in ("Grad-CAM", "Grad-CAM++", "blind map"):
        hit = summary[f"pointing game, {method}"]
        assert 0 <= hit["low"] <= hit["value"] <= hit["high"] <= 1
    assert 0 < summary["pointing game, by chance"] < 0.2
    assert 0 < summary["phantoms with an opacity"] < summary["images scored"]
    without_stamps((smoke.folder / "explanations.json").read_text(encoding="utf-8"), smoke)


# model folder


def test_model_folder_is_whole(smoke):
    card = load(smoke.folder / "model" / "model.json")
    wanted = {"format", "labels", "input_size", "threshold", "threshold_policy", "calibration", "backbone"}
    wanted |= {"weights_origin", "dataset_fingerprint", "metrics", "versions", "sha256", "phantoms"}
    wanted |= {"uncertain", "certain", "operating_points", "guard_sha256", "public", "traps"}  # beyond the contract
    assert set(card) == wanted
    assert card["uncertain"][0] <= card["threshold"] <= card["uncertain"][1]
    assert card["guard_sha256"] == hashlib.sha256((smoke.folder / "model" / "guard.npz").read_bytes()).hexdigest()
    assert card["format"] == 1
    assert card["labels"] == ["NORMAL", "PNEUMONIA"]
    assert card["sha256"] == hashlib.sha256((smoke.folder / "model" / "model.keras").read_bytes()).hexdigest()
    metrics = load(smoke.folder / "metrics.json")
    assert card["metrics"] == metrics
    assert card["threshold"] == metrics["test"]["threshold"]
    assert card["threshold_policy"] == metrics["test"]["threshold_policy"]
    assert (card["backbone"], card["weights_origin"], card["phantoms"]) == ("SmallCNN", "phantoms", True)
    assert card["dataset_fingerprint"] == smoke.clone.record(smoke.name)["dataset"]["fingerprint"]
    assert {"python", "tensorflow", "keras", "numpy"} <= set(card["versions"])
    assert {path.name for path in (smoke.folder / "model").iterdir()} == {"model.keras", "model.json", "guard.npz"}
    without_stamps((smoke.folder / "model" / "model.json").read_text(encoding="utf-8"), smoke)


def test_model_takes_raw_pixels_and_repeats_the_predictions(smoke):
    import keras

    card = load(smoke.folder / "model" / "model.json")
    network = keras.saving.load_model(smoke.folder / "model" / "model.keras", compile=False, safe_mode=True)
    assert list(network.input_shape[1:]) == card["input_size"] == [64, 64, 1]
    predictions = table(smoke.folder / "predictions.csv")
    opened = [Image.open(smoke.data / path).convert("L") for path in predictions["path"]]
    raw = np.stack([np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)) for image in opened])
    assert raw.max() > 200
    probability = network.predict(raw[..., None].astype("float32"), verbose=0)[:, 0].astype(float)
    logits = np.log(probability / (1 - probability))
    calibrated = 1 / (1 + np.exp(-(card["calibration"]["slope"] * logits + card["calibration"]["intercept"])))
    # the sigmoid in front of the logarithm costs digits that a steep calibration multiplies
    spread = max(1.0, abs(card["calibration"]["slope"]))
    assert np.abs(calibrated - predictions["probability"]).max() < 1e-6 * spread
    assert len(np.unique(probability)) > len(probability) / 2, "every image is alike to it"


def test_command_predicts_the_whole_test_split_alike(smoke, tmp_path):
    model, folder = Path("reports") / smoke.name / "model", "data/smoke/test"
    done = smoke.clone.python("helpers.predict", "--model", model, "--csv", tmp_path / "out.csv", folder)
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out.csv")
    assert list(found) == ["path", "probability", "label", "threshold", "warnings", "error"]
    wanted = table(smoke.folder / "predictions.csv").query("split == 'test'")
    assert list(found["path"]) == [f"data/smoke/{path}" for path in wanted["path"]]
    assert (found["error"] == "").all()
    difference = found["probability"].to_numpy(float) - wanted["probability"].to_numpy()
    assert np.abs(difference).max() <= 1e-5
    threshold = load(smoke.folder / "metrics.json")["test"]["threshold"]
    decided = np.where(wanted["probability"] >= threshold, "PNEUMONIA", "NORMAL")
    assert list(found["label"]) == list(decided)
    assert found["threshold"].to_numpy(float) == pytest.approx(threshold, rel=1e-8)


# run.json


def test_run_json_says_how_to_get_the_same_numbers(smoke):
    record = smoke.clone.record(smoke.name)
    settings = config.make_settings("smoke")
    assert record["parameters"] == {name: getattr(settings, name) for name in config.FIELDS}
    assert record["run"] == smoke.name
    assert record["profile"] == "smoke"
    if smoke.commit:
        assert record["git"] == {"commit": smoke.commit, "clean": True}
    assert record["seeds"] == {"seed": settings.seed}
    assert {"python", "tensorflow", "keras", "numpy", "pandas", "papermill"} <= set(record["versions"])
    manifest = table(smoke.folder / "manifest.csv")
    lines = "".join(f"{row.path} {row.sha256}\n" for row in manifest.itertuples())
    wanted = {"fingerprint": hashlib.sha256(lines.encode()).hexdigest(), "files": len(manifest)}
    assert record["dataset"] == wanted
    assert list(record["notebooks"]) == list(STEMS)
    assert len(record["lock"]) == 64
    for entry in record["notebooks"].values():
        assert entry["status"] == "done"
        assert {"config/settings.py", "images/decode.py"} <= set(entry["helpers"])
        assert 0.5 < entry["seconds"] < 900
        assert 50e6 < entry["peak_memory"] < 4e9
    assert str(smoke.clone.root) not in json.dumps(record)


# pages


class Page(HTMLParser):
    """What a page of HTML fetches, links to, and says."""

    def __init__(self, file: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.skip = "", 0
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        self.skip += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.skip -= tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self.skip else data

    def all(self, tag: str) -> Iterator[dict]:
        return (attributes for name, attributes in self.tags if name == tag)


@pytest.mark.parametrize("stem", ["index", *STEMS])
def test_page_is_complete_in_itself(smoke, stem):
    page = Page(smoke.folder / f"{stem}.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"}
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    styles = "".join(re.findall(r"<style.*?</style>", page.source, re.DOTALL))
    styles += "".join(attributes.get("style") or "" for _, attributes in page.tags)
    assert not re.search(r"@import|url\(", styles)
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for link in page.all("a"):
        parts = urlsplit(link["href"])
        if parts.scheme in ("http", "https"):
            continue
        assert parts.scheme == ""
        target = smoke.folder / unquote(parts.path) if parts.path else None
        assert target is None or target.is_file(), link["href"]
        if parts.fragment and target is None:
            assert parts.fragment in places, link["href"]
    assert page.text.strip().startswith(report.BANNER) or report.BANNER in page.source.split("<main")[0]
    assert not re.search(r"Traceback|\bWARNING\b|Warning:|stderr|object at 0x|<Figure|VBox\(|FutureWarning", page.text)
    for path in (str(smoke.clone.root), str(smoke.clone.root.parent), str(config.ROOT / "helpers")):
        assert path not in page.source
    assert len(page.source) < 5e6


@pytest.mark.parametrize("stem", ["index", *STEMS])
def test_page_says_where_its_numbers_come_from(smoke, stem):
    record, said = smoke.clone.record(smoke.name), Page(smoke.folder / f"{stem}.html").text
    wanted = [record["command"], record["lock"], record["dataset"]["fingerprint"], record["machine"]["platform"]]
    wanted += [f"seed {record['seeds']['seed']}", record["started"].replace("T", " ")]
    wanted += [f"{name} {version}" for name, version in record["versions"].items()]
    wanted += [f"{smoke.commit}, clean tree"] if smoke.commit else []
    wanted += [record["notebooks"][stem]["started"].replace("T", " ")] if stem in STEMS else []
    assert not [text for text in wanted if text not in said]


def test_index_leads_to_everything(smoke):
    page = Page(smoke.folder / "index.html")
    links = [link["href"] for link in page.all("a")]
    assert list(dict.fromkeys(href.removesuffix(".html") for href in links if href.endswith(".html"))) == list(STEMS)
    assert {f"{stem}.ipynb" for stem in STEMS} <= set(links)
    value = load(smoke.folder / "metrics.json")["test"]["auc"]["value"]
    for wanted in (f"{value:.3f}", smoke.name, f"python -m helpers.run --profile smoke --name {smoke.name}", "seed"):
        assert wanted in page.text
    if smoke.commit:
        assert smoke.commit in page.text


def test_index_shows_cases_of_this_run_with_image_and_heatmap(smoke):
    cases, test = load(smoke.folder / "cases.json")["cases"], load(smoke.folder / "metrics.json")["test"]
    predictions = table(smoke.folder / "predictions.csv").query("split == 'test'").set_index("path")
    assert len(cases) == 6
    for case in cases:
        row = predictions.loc[case["path"]]
        called = "P" if row["probability"] >= test["threshold"] else "N"
        right = called == row["label"][0]
        assert case["outcome"] == ("T" if right else "F") + called
        assert (case["probability"], case["label"]) == (row["probability"], row["label"])
    shown = [image["src"] for image in Page(smoke.folder / "index.html").all("img")]
    assert shown == [case[part] for case in cases for part in ("image", "heatmap")]


@pytest.mark.parametrize("stem", STEMS)
def test_page_shows_the_whole_notebook(smoke, stem):
    page = Page(smoke.folder / f"{stem}.html")
    assert sum(1 for _ in page.all("h1")) == 1
    assert "What we learnt" in page.text
    assert "After this notebook you can" in page.text
    code = [attributes for attributes in page.all("details") if attributes.get("class") == "code"]
    assert len(code) >= 8, "code is folded but there"
    assert all("open" not in attributes for attributes in code)
    if stem != STEMS[-1]:
        assert sum(1 for _ in page.all("img")) >= 1, "a figure"


def test_widget_leaves_a_still_picture(smoke):
    page = Page(smoke.folder / "07_predict.html")
    start = page.source.rindex("A still picture")
    after = page.source[start : page.source.index("<h2 id", start)]
    assert after.count("<img") == 2  # the image, and its heatmap
    assert re.search(r"Signs of pneumonia|Below the threshold|Uncertain", after)
    assert re.search(r"probability [01]\.\d{3}, threshold 0\.\d{3}", after)


# doing it again, and elsewhere


def test_resume_on_a_finished_run_touches_nothing(smoke):
    before = state_of(smoke.folder)
    done = smoke.clone.python("helpers.run", "--name", smoke.name, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("skipped") == len(STEMS)
    assert state_of(smoke.folder) == before


def test_one_notebook_again_needs_no_training_and_gives_the_same_bytes(smoke):
    again = smoke.clone.reports / "again"
    shutil.copytree(smoke.folder, again)
    try:
        before, recorded = state_of(again), smoke.clone.record("again")["notebooks"]
        for name in ("metrics.json", "predictions.csv", "05_evaluation.html"):
            (again / name).unlink()
        done = smoke.clone.python("helpers.run", "--name", "again", "--only", "05")
        assert done.returncode == 0, done.stderr
        after, now = state_of(again), smoke.clone.record("again")["notebooks"]
        assert {stem: entry for stem, entry in now.items() if stem[:2] != "05"} == {
            stem: entry for stem, entry in recorded.items() if stem[:2] != "05"
        }
        assert set(after) == set(before)
        for name in ("metrics.json", "predictions.csv", "model/model.json"):
            assert after[name][1] == before[name][1], name
        untouched = [name for name in before if name.startswith(("training/", "head/", "0")) and name[:2] != "05"]
        assert all(after[name] == before[name] for name in untouched)
        assert after["model/model.keras"] == before["model/model.keras"]
    finally:
        shutil.rmtree(again)


@pytest.fixture
def elsewhere(smoke) -> Iterator[tuple[Path, dict[str, str]]]:
    """Some of the test images as another labelled folder: no split, no pattern, one damaged; new path -> old path."""
    other, origin = smoke.clone.root / "data" / "Klinik Süd", {}
    predictions = table(smoke.folder / "predictions.csv").query("split == 'test'")
    for label, part in predictions.groupby("label"):
        (other / label).mkdir(parents=True)
        for number, path in enumerate(part["path"].iloc[::2]):
            origin[f"{label}/{'scan' if number % 2 else 'Bild '}{7 * number}.jpg"] = path
    for name, path in origin.items():
        shutil.copy(smoke.data / path, other / name)
    (other / "NORMAL" / "broken.jpeg").write_bytes(b"\xff\xd8\xff\xe0 not much of an image")
    (other / "NORMAL" / "notes.txt").write_text("not an image", encoding="utf-8")
    yield other, origin
    shutil.rmtree(other)


def test_saved_model_is_measured_on_another_folder(smoke, elsewhere):
    other, origin = elsewhere
    words = ["--from", "05", "--set", f"model=reports/{smoke.name}/model", "--data", f"data/{other.name}"]
    done = smoke.clone.python("helpers.run", "--profile", "smoke", "--name", "other", *words)
    assert done.returncode == 0, done.stderr
    folder = smoke.clone.reports / "other"
    own, found = load(smoke.folder / "metrics.json"), load(folder / "metrics.json")
    assert found["test"]["threshold"] == own["test"]["threshold"]
    assert found["test"]["threshold_policy"] == own["test"]["threshold_policy"]
    assert found["validation"] == own["validation"], "what the model brought with it"
    assert found["test"]["n"] == found["test"]["patients"] == len(origin), "a patient per file"
    assert found["test"]["by_subtype"] == {}
    wanted = table(smoke.folder / "predictions.csv").set_index("path")["probability"]
    predictions = table(folder / "predictions.csv").set_index("path")
    assert set(predictions.index) == set(origin)
    assert set(predictions["split"]) == {"test"}
    for path, before in origin.items():
        assert predictions.loc[path, "probability"] == pytest.approx(wanted[before], abs=1e-5)
    manifest = table(folder / "manifest.csv").set_index("path")
    assert manifest.loc["NORMAL/broken.jpeg", "excluded"]
    assert manifest.loc["NORMAL/broken.jpeg", "why"].startswith("unreadable: ")
    assert not manifest.drop("NORMAL/broken.jpeg")["excluded"].any()
    assert (smoke.folder / "model/model.keras").read_bytes() == (folder / "model/model.keras").read_bytes()
    before, after = (load(place / "model" / "model.json") for place in (smoke.folder, folder))
    assert after == before
    pages = {path.stem for path in folder.glob("*.html")}
    assert pages == {"index", *STEMS[4:]}
    assert report.BANNER in (folder / "05_evaluation.html").read_text(encoding="utf-8"), "its model is of phantoms"
    assert smoke.clone.record("other")["command"].startswith(
        "python -m helpers.run --profile smoke --name other --data"
    )


# without the runner


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> Clone:
    return make_clone(tmp_path_factory.mktemp("driven") / "clone")


def drive(clone: Clone, stem: str, cwd: Path, **parameters: object) -> str:
    """Execute a notebook with nothing but papermill; all it printed."""
    out = clone.root.parent / f"{stem}.ipynb"
    done = papermill.execute_notebook(
        clone.notebooks / f"{stem}.ipynb", out, parameters, cwd=str(cwd), kernel_name="python3", progress_bar=False
    )
    return "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))


def test_notebook_runs_with_plain_papermill_from_anywhere(driven):
    chosen = {"profile": "smoke", "phantoms": 20, "seed": 2}
    said = drive(driven, "01_eda", driven.root, run="one", **chosen)
    assert re.search(r"profile +smoke", said)
    assert re.search(r"20 phantom patients", said)
    assert re.search(r"seed +2\b", said)
    assert "reports/one" in said
    one = (driven.reports / "one" / "manifest.csv").read_bytes()
    assert not (driven.reports / "smoke").exists()
    drive(driven, "01_eda", driven.reports / "one", run="two", **chosen)
    assert (driven.reports / "two" / "manifest.csv").read_bytes() == one
    recipe = load(driven.root / "data" / "smoke-20" / "phantoms.json")
    assert (recipe["patients"], recipe["trap"]) == (20, "none")


def test_papermill_parameter_that_does_not_exist_is_refused(driven):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        drive(driven, "01_eda", driven.root, profile="smoke", run="three", sead=2)
    assert caught.value.ename == "InputError"
    assert "'sead'" in caught.value.evalue
    assert "'seed'" in caught.value.evalue
    assert not (driven.reports / "three").exists()
