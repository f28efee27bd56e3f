"""The figures of notebook 05 where a split, or a class of one, is missing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers import evaluation, plots

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    plots.use_style()
    yield
    plt.close("all")


def predictions(*splits: str, labels: tuple[str, ...] = ("NORMAL", "PNEUMONIA")) -> pd.DataFrame:
    count = 20 * len(splits)
    table = pd.DataFrame({"split": np.repeat(splits, 20), "label": np.resize(labels, count)})
    table["patient"] = [f"p{row}" for row in range(count)]
    return table.assign(subtype="", probability=np.random.default_rng(0).random(count))


def summaries(table: pd.DataFrame) -> dict[str, dict]:
    parts = table.groupby("split", sort=False)
    return {name: evaluation.summarise(part, 0.5, "0.5", 10, 0) for name, part in parts}


def shown(axis) -> set[str]:
    return {text.get_text() for text in axis.get_legend().get_texts()}


SPLITS = pytest.mark.parametrize("splits", [("validation", "test"), ("validation",), ("test",)])


@SPLITS
def test_intervals_are_drawn_of_the_splits_that_are_there(splits):
    plots.metric_intervals(summaries(predictions(*splits)), ("auc", "balanced_accuracy"))
    axis = plt.gca()
    assert shown(axis) == set(splits)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["AUC", "balanced accuracy"]


@SPLITS
def test_curves_and_calibration_are_drawn_of_the_splits_that_are_there(splits):
    plots.ranking_curves(predictions(*splits), 0.5)
    assert shown(plt.gca()) == set(splits)
    plots.reliability_diagram(predictions(*splits))
    assert shown(plt.gca()) == set(splits)


@SPLITS
def test_a_matrix_and_a_histogram_for_each_split_that_is_there(splits):
    plots.confusion_matrices(summaries(predictions(*splits)))
    assert [axis.get_title() for axis in plt.gcf().axes] == [f"{name} (n = 20)" for name in splits]
    plots.probability_histogram(predictions(*splits), 0.5)
    assert [axis.get_title().split()[0] for axis in plt.gcf().axes] == list(splits)


def test_a_threshold_above_all_scores_still_has_curves():
    plots.ranking_curves(predictions("test"), 1.0)
    assert shown(plt.gca()) == {"test"}


def test_a_decision_curve_has_a_line_for_the_model_and_for_each_default():
    table = predictions("test")
    plots.decision_curve(table["label"] == "PNEUMONIA", table["probability"], highest=0.4)
    axis = plt.gca()
    assert shown(axis) == {"model", "treat all", "treat none"}
    model, everyone, none = (line.get_ydata() for line in axis.get_lines())
    assert everyone[0] == pytest.approx(0.5 - 0.5 / 99)  # half have pneumonia
    assert model.max() <= 0.5
    assert set(none) == {0}
    assert axis.get_lines()[0].get_xdata()[-1] == pytest.approx(0.4)


def test_one_class_has_a_matrix_and_intervals_but_no_curve():
    table = pd.concat([predictions("validation"), predictions("test", labels=("NORMAL",))])
    plots.confusion_matrices(summaries(table))
    plots.metric_intervals(summaries(table), ("auc", "specificity"))
    plots.ranking_curves(table, 0.5)
    assert shown(plt.gca()) == {"validation"}
