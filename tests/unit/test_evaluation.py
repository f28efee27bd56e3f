"""What reports say: the summary of metrics.json, tables, Table 1, and published results."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as sk

from helpers import evaluation
from helpers.config import InputError
from helpers.evaluation import METRICS, characteristics, predictive_values, summarise, where_rarer


def frame(n=200, seed=0):
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.6
    scores = expit(random.normal(1.5 * (labels - 0.5), 1.0))
    kinds = np.where(np.arange(n) % 3 == 0, "virus", "bacteria")
    return pd.DataFrame(
        {
            "label": np.where(labels, "PNEUMONIA", "NORMAL"),
            "patient": [f"person{i // 2}" for i in range(n)],
            "subtype": np.where(labels, kinds, ""),
            "probability": scores,
        }
    )


# Summary


def test_summary_is_what_metrics_json_promises():
    data = frame()
    data.loc[data.index[:20], "subtype"] = ""  # unknown, of both classes
    data.loc[data.index[20:40], "subtype"] = "virus"  # of both classes: a normal image has no part in sensitivity
    summary = summarise(data, 0.4, "0.4", 60, 1)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    ill = data["label"] == "PNEUMONIA"
    assert (summary["n"], summary["patients"], summary["prevalence"]) == (200, 100, ill.mean())
    assert (summary["threshold"], summary["threshold_policy"]) == (0.4, "0.4")
    tn, fp, fn, tp = sk.confusion_matrix(ill, data["probability"] >= 0.4).ravel().tolist()
    assert summary["confusion"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    for name in METRICS:
        assert set(summary[name]) == {"value", "low", "high"}
    assert summary["sensitivity"]["value"] == pytest.approx(tp / (tp + fn))
    assert list(summary["by_subtype"]) == ["bacteria", "virus"]
    for kind, part in summary["by_subtype"].items():
        rows = data[ill & (data["subtype"] == kind)]
        assert part["n"] == len(rows)
        assert part["sensitivity"]["value"] == pytest.approx((rows["probability"] >= 0.4).mean())


def test_summary_without_subtypes_and_with_one_class():
    data = frame().assign(subtype=np.nan)  # as pandas reads an empty column
    assert summarise(data, 0.5, "0.5", 20, 1)["by_subtype"] == {}
    normal = summarise(data[data["label"] == "NORMAL"], 0.5, "0.5", 20, 1)
    assert normal["prevalence"] == 0
    assert normal["auc"] == {"value": None, "low": None, "high": None}
    assert "–" in evaluation.table(normal)["value"].tolist()


def test_summary_refuses_foreign_labels_and_missing_columns():
    with pytest.raises(InputError, match="label"):
        summarise(frame().replace({"label": {"NORMAL": "normal"}}), 0.5, "0.5", 20, 1)
    with pytest.raises(InputError, match="subtype"):
        summarise(frame().drop(columns="subtype"), 0.5, "0.5", 20, 1)


def test_tables_survive_the_way_through_sorted_json():
    summary = summarise(frame(), 0.4, "0.4", 60, 1)
    stored = json.loads(json.dumps(summary, sort_keys=True))
    table = evaluation.table(summary)
    pd.testing.assert_frame_equal(table, evaluation.table(stored))
    row = table.set_index("metric").loc["sensitivity"]
    low, high = summary["sensitivity"]["low"], summary["sensitivity"]["high"]
    assert row["value"] == f"{summary['sensitivity']['value']:.3f}"
    assert row["95% interval"] == f"{low:.3f} to {high:.3f}"
    assert row["n"] == summary["confusion"]["tp"] + summary["confusion"]["fn"]
    assert {"sensitivity, bacteria", "sensitivity, virus", "balanced accuracy"} <= set(table["metric"])

    compared = evaluation.compare_published(stored, "this run", "one seed")
    assert len(compared) == len(evaluation.PUBLISHED) + 1
    assert compared.loc[0, ["who", "n", "how"]].tolist() == ["this run", 200, "one seed"]
    assert compared.loc[0, "accuracy"].startswith(f"{100 * summary['accuracy']['value']:.1f} (")
    kermany = compared[compared["who"].str.startswith("Kermany")].iloc[0]
    assert kermany[["accuracy", "sensitivity", "specificity", "AUC"]].tolist() == ["92.8", "93.2", "90.1", "0.968"]
    assert not compared.isna().any(axis=None)


def test_a_metric_in_a_sentence():
    metric = {"value": 0.98149, "low": 0.968, "high": 0.9931}
    assert evaluation.sentence("auc", metric) == "AUC 0.981 (0.968 to 0.993)"
    assert evaluation.sentence("accuracy", metric | {"low": 0.5, "high": 0.5}) == "accuracy 0.981"
    assert evaluation.sentence("npv", dict.fromkeys(("value", "low", "high"))) == "NPV –"


def test_an_interval_without_width_is_not_shown():
    summary = summarise(frame(), 0.4, "0.4", 60, 1)
    summary["auc"] = {"value": 1.0, "low": 1.0, "high": 1.0}
    shown = evaluation.table(summary).set_index("metric")
    assert shown.loc["AUC", "95% interval"] == "–"
    assert " to " in shown.loc["accuracy", "95% interval"]


def test_the_baseline_always_answers_pneumonia():
    summary = summarise(frame(), 0.4, "0.4", 60, 1)
    shown, prevalence = evaluation.table(summary, baseline=True).set_index("metric")["baseline"], summary["prevalence"]
    wanted = {"AUC": 0.5, "accuracy": prevalence, "sensitivity": 1, "specificity": 0, "ECE": 0}
    wanted |= {"F1": 2 * prevalence / (1 + prevalence), "Brier score": prevalence * (1 - prevalence)}
    assert {name: float(shown[name]) for name in wanted} == pytest.approx(wanted, abs=6e-4)
    assert shown["NPV"] == "–"
    assert shown["sensitivity, virus"] == shown["sensitivity, bacteria"] == "1.000"


def test_where_pneumonia_is_rarer_precision_falls():
    summary = summarise(frame(), 0.5, "0.5", 50, 0)
    table = where_rarer(summary)
    assert table.index.tolist() == ["0.01", "0.05", "0.2", f"here: {summary['prevalence']:.3f}"]
    values = [float(text.split()[0]) for text in table["precision"]]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(summary["precision"]["value"], abs=1e-3)
    confusion = summary["confusion"]
    here = table.iloc[-1]
    assert float(here["false alarms"]) == pytest.approx(1000 * confusion["fp"] / summary["n"], abs=0.06)
    assert float(here["missed"]) == pytest.approx(1000 * confusion["fn"] / summary["n"], abs=0.06)
    precision, npv = predictive_values(summary["sensitivity"], summary["specificity"], 0.01)
    assert table.loc["0.01", "precision"].replace("\N{NO-BREAK SPACE}", " ") == evaluation.with_interval(precision)
    assert table.loc["0.01", "NPV"].replace("\N{NO-BREAK SPACE}", " ") == evaluation.with_interval(npv, digits=4)


def test_no_class_or_no_interval_gives_no_precision_elsewhere():
    normal = frame().query("label == 'NORMAL'")
    assert where_rarer(summarise(normal, 0.5, "0.5", 20, 0)).empty
    one = {"value": 0.9, "low": None, "high": None}
    table = where_rarer({"sensitivity": one, "specificity": one, "prevalence": 0.1})
    assert table.index.tolist() == ["0.01", "0.05", "here: 0.100"]  # 0.2 is not rarer
    assert table["precision"].tolist() == ["0.083", "0.321", "0.500"]


def test_table_one_by_hand():
    rows = [
        ("train", "NORMAL", "IM-1", ""),
        ("train", "NORMAL", "IM-2", np.nan),
        ("train", "PNEUMONIA", "person1_virus", "virus"),
        ("train", "PNEUMONIA", "person1_virus", "virus"),
        ("train", "PNEUMONIA", "person2_bacteria", "bacteria"),
        ("test", "PNEUMONIA", "unnamed", ""),
        ("test", "PNEUMONIA", "person3_bacteria", "bacteria"),
    ]
    table = characteristics(pd.DataFrame(rows, columns=["split", "label", "patient", "subtype"]))
    assert table["train"].to_dict() == {
        "images": "5",
        "patients": "4",
        "NORMAL": "2 (40%)",
        "PNEUMONIA": "3 (60%)",
        "PNEUMONIA, bacteria": "1 (20%)",
        "PNEUMONIA, subtype unknown": "0 (0%)",
        "PNEUMONIA, virus": "2 (40%)",
        "age": "not recorded",
        "sex": "not recorded",
    }
    assert table["test"].tolist()[:6] == ["2", "2", "0 (0%)", "2 (100%)", "1 (50%)", "1 (50%)"]
