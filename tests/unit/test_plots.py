"""The figures of notebooks 05 and 06, also where a split, or a class of one, is missing."""

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
def test_a_matrix_and_a_histogram_for_each_split_that_is_there(splits):
    plots.confusion_matrices(summaries(predictions(*splits)))
    assert [axis.get_title() for axis in plt.gcf().axes] == [f"{name} (n = 20)" for name in splits]
    plots.probability_histogram(predictions(*splits), 0.5)
    assert [axis.get_title().split()[0] for axis in plt.gcf().axes] == list(splits)


def test_one_class_has_a_matrix_and_intervals():
    table = pd.concat([predictions("validation"), predictions("test", labels=("NORMAL",))])
    plots.confusion_matrices(summaries(table))
    plots.metric_intervals(summaries(table), ("auc", "specificity"))
    assert shown(plt.gca()) == {"validation", "test"}


def test_failures_are_paged_and_no_more_are_shown_than_asked_for():
    table = evaluation.failures(predictions("test").assign(row=range(20)), 0.5, (0.4, 0.6))
    plots.failure_pages(table, np.zeros((20, 8, 8), np.uint8), most=7, page=3)
    shown = [[axis for axis in plt.figure(n).axes if axis.images] for n in plt.get_fignums()]
    assert [len(axes) for axes in shown] == [3, 3, 1]
    first = table.iloc[0]
    assert shown[0][0].get_title() == f"{first['label']}\np = {first['probability']:.3f}, {first['answer']}"


def test_heatmaps_have_a_row_an_image_and_an_outline_where_there_is_one():
    films, heat, outlines = np.zeros((2, 8, 8), np.uint8), np.ones((2, 4, 4)), np.zeros((2, 8, 8), bool)
    outlines[1, 2:5, 2:5] = True
    plots.heatmap_rows(films, {"one": heat, "other": heat}, ["a", "b"], outlines)
    *axes, bar = plt.gcf().axes
    assert [axis.get_title() for axis in axes] == ["a", "one", "other", "b", "one", "other"]
    assert [len(axis.images) for axis in axes] == [1, 2, 2] * 2
    assert [bool(axis.collections) for axis in axes] == [False] * 3 + [True] * 3
    assert bar.get_xlabel().startswith("activation")
