"""Metrics against hand-computed values, and against scikit-learn on whatever hypothesis draws, ties above all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from helpers.config import InputError
from helpers.evaluation import METRICS, choose_threshold, measure, outcomes, weighted

LABELS = np.array([0, 0, 1, 0, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])


@st.composite
def images(draw, smallest=2):
    """Labels of both classes, and scores of which many are equal, or few."""
    labels = draw(st.lists(st.booleans(), min_size=smallest, max_size=40).filter(lambda x: any(x) and not all(x)))
    steps = draw(st.sampled_from([1, 3, 10, 1000]))
    scores = draw(st.lists(st.integers(0, steps), min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores) / steps


def test_metrics_by_hand():
    found = measure(LABELS, SCORES, 0.65)  # TP 0.7 0.9, FN 0.3, no FP
    assert outcomes(LABELS, SCORES, 0.65).tolist() == ["TN", "TN", "FN", "TN", "TP", "TP"]
    assert found == pytest.approx(
        {
            "auc": 8 / 9,
            "average_precision": (1 + 1 + 3 / 4) / 3,
            "accuracy": 5 / 6,
            "balanced_accuracy": 5 / 6,
            "sensitivity": 2 / 3,
            "specificity": 1,
            "precision": 1,
            "npv": 3 / 4,
            "f1": 4 / 5,
            "brier": (0.01 + 0.04 + 0.49 + 0.36 + 0.09 + 0.01) / 6,
            "ece": (0.1 + 0.2 + 0.7 + 0.6 + 0.3 + 0.1) / 6,  # every score in a bin of its own
        }
    )
    assert tuple(found) == METRICS


@settings(max_examples=60, deadline=None, derandomize=True)
@given(images(), st.sampled_from([0.0, 0.3, 0.5, 0.77, 1.0]))
def test_metrics_agree_with_scikit_learn_whatever_is_tied(drawn, threshold):
    labels, scores = drawn
    called = scores >= threshold
    found = measure(labels, scores, threshold)
    expected = {
        "auc": sk.roc_auc_score(labels, scores),
        "average_precision": sk.average_precision_score(labels, scores),
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "sensitivity": sk.recall_score(labels, called),
        "specificity": sk.recall_score(~labels, ~called),
        "precision": sk.precision_score(labels, called) if called.any() else None,
        "npv": sk.precision_score(~labels, ~called) if not called.all() else None,
        "f1": sk.f1_score(labels, called),
        "brier": sk.brier_score_loss(labels, scores),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    bins = np.digitize(scores, np.arange(1, 10) / 10)
    gap = sum(abs(np.sum((scores - labels)[bins == number])) for number in range(10)) / len(labels)
    assert found["ece"] == pytest.approx(gap, abs=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(images(5), st.integers(0, 100))
def test_a_weight_of_two_is_the_image_given_twice(drawn, seed):
    order = np.argsort(drawn[1], kind="stable")
    labels, scores = drawn[0][order], drawn[1][order]
    weights = np.random.default_rng(seed).poisson(1.0, (4, len(labels)))
    weights[:, 0] += 1  # at least one image in each row
    found = weighted(labels, scores, 0.4, weights)
    for row, weight in enumerate(weights):
        again = np.repeat(np.arange(len(labels)), weight)
        repeated = measure(labels[again], scores[again], 0.4)
        ours = {name: None if np.isnan(found[name][row]) else found[name][row] for name in METRICS}
        assert ours == pytest.approx(repeated)
        assert np.abs(found["gaps"][row]).sum() == pytest.approx(repeated["ece"])


def test_equal_scores_are_chance():
    found = measure(LABELS, np.full(6, 0.5), 0.5)
    assert (found["auc"], found["average_precision"]) == (0.5, 0.5)
    assert (found["sensitivity"], found["specificity"]) == (1, 0)  # at the threshold is positive


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("use", [measure, outcomes, lambda y, p, t: choose_threshold(y, p, "youden")])
def test_impossible_probabilities_are_refused(bad, use):
    with pytest.raises(InputError, match="1 of 2 probabilities"):
        use([0, 1], [0.5, bad], 0.5)


@pytest.mark.parametrize(
    ("labels", "scores", "threshold"),
    [
        ([], [], 0.5),
        ([0, 1], [0.5], 0.5),
        ([0, 2], [0.1, 0.2], 0.5),
        ([0, np.nan], [0.1, 0.2], 0.5),
        ([[1]], [[0.5]], 0.5),
        (LABELS, SCORES, np.nan),
    ],
)
def test_input_that_is_not_one_score_an_image_is_refused(labels, scores, threshold):
    with pytest.raises(InputError):
        measure(labels, scores, threshold)


def test_ece_by_hand():
    # 0.3 opens its bin and 1 is in the last, so two gaps are 0, and the fourth bin holds 0.3 and 0.35, both ill
    assert measure([0, 1, 1, 1], [0.0, 0.3, 0.35, 1.0], 0.5)["ece"] == pytest.approx((0.7 + 0.65) / 4)
    assert measure([1, 0], [0.29, 0.3], 0.5)["ece"] == pytest.approx((0.71 + 0.3) / 2), "in two bins"
