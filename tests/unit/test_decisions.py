"""Calibration, threshold, uncertain range and decision curve: hand-computed cases and properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn import metrics as sk

from helpers.config import InputError
from helpers.evaluation import (
    calibrate,
    calibration_effect,
    certainty,
    choose_threshold,
    failures,
    fit_calibration,
    measure,
    net_benefit,
    operating_points,
    outcomes,
    uncertain_range,
)

LABELS = np.array([0, 0, 1, 0, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])


def draw(n, seed):
    """Labels and scores of n images."""
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.6
    return labels, expit(random.normal(1.5 * (labels - 0.5), 1.0))


# Calibration


# Calibration


def test_platt_reaches_the_optimum_of_the_smoothed_likelihood():
    labels, scores = draw(400, 3)
    logits = 4 * np.log(scores / (1 - scores)) - 7  # overconfident and shifted
    fit = fit_calibration(labels, logits)
    yes, no = labels.sum(), (~labels).sum()
    targets = np.where(labels, (yes + 1) / (yes + 2), 1 / (no + 2))
    residual = calibrate(logits, fit) - targets
    assert fit["method"] == "platt"
    assert abs(residual.mean()) < 1e-8  # both derivatives of the likelihood vanish
    assert abs((residual * logits).mean()) < 1e-7
    assert fit == fit_calibration(labels, logits)


def test_platt_mends_overconfident_scores():
    labels, scores = draw(2000, 4)
    logits = 5 * np.log(scores / (1 - scores)) - 3
    before = measure(labels, expit(logits), 0.5)
    after = measure(labels, calibrate(logits, fit_calibration(labels, logits)), 0.5)
    assert after["ece"] < before["ece"] / 3
    assert after["brier"] < before["brier"]
    assert after["auc"] == pytest.approx(before["auc"], abs=1e-12)


def test_platt_on_two_groups_gives_the_smoothed_shares():
    # Two distinct logits can be fitted exactly: each group's probability is the mean of its targets.
    labels, logits = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.repeat([2.0, -1.0], 4)
    high, low = 5 / 6, 1 / 6
    found = calibrate([2.0, -1.0], fit_calibration(labels, logits))
    np.testing.assert_allclose(found, [(3 * high + low) / 4, (3 * low + high) / 4], atol=1e-7)


def test_separated_classes_keep_a_finite_slope():
    labels = np.repeat([0, 1], 50)
    fit = fit_calibration(labels, np.where(labels, 8.0, -8.0))
    np.testing.assert_allclose(calibrate([8.0, -8.0], fit), [51 / 52, 1 / 52], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "logits", "reason"),
    [
        ([1, 1, 1], [0.0, 1.0, 2.0], "one class"),
        ([0, 0, 0], [0.0, 1.0, 2.0], "one class"),
        ([0, 1, 0], [3.3, 3.3, 3.3], "alike"),
        ([1, 1, 0, 0], [-2.0, -1.0, 1.0, 2.0], "do not mean"),
        ([0, 1, 0, 1], [1.0, 1.0, 2.0, 2.0], "do not mean"),
    ],
)
def test_no_positive_slope_means_the_identity_and_a_reason(labels, logits, reason):
    fit = fit_calibration(labels, logits)
    assert (fit["method"], fit["slope"], fit["intercept"]) == ("none", 1.0, 0.0)
    assert reason in fit["reason"]
    np.testing.assert_array_equal(calibrate(logits, fit), expit(logits))


def test_calibrate_keeps_distinct_logits_distinct_without_overflow():
    logits = np.concatenate([np.linspace(-700, -30, 500), np.linspace(-29, 29, 5000)])
    with np.errstate(over="raise", invalid="raise"):
        found = calibrate(logits, {"slope": 1.0, "intercept": 0.0})
        extreme = calibrate(np.float32([-3e38, 3e38]), {"slope": 1.0, "intercept": 0.0})
    assert found.dtype == np.float64
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(extreme, [0, 1])
    assert calibrate(np.zeros((2, 3), np.float32), {"slope": 2.0, "intercept": 0.0}).shape == (2, 3)


def test_calibration_is_measured_and_carried_to_another_prevalence():
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    logits = rng.normal(0, 1, 4000) + 2 * labels - 1  # the log of the ratio of likelihoods is 2 x logit
    right = {"method": "platt", "slope": 2.0, "intercept": float(logit(0.7))}  # fitted where 70% have pneumonia
    table = calibration_effect(labels, logits, right, 0.7, range(4000), 200, 1)
    assert list(table.index) == ["before", "after", "after, for the prevalence here"]
    assert table.loc["after, for the prevalence here", "ECE"] < 0.03 < 0.1 < table.loc["after", "ECE"]
    np.testing.assert_allclose(table["ECE if perfect"].astype(float), 0.015, atol=0.01)
    assert table.loc["after", "Brier score"] == pytest.approx(np.mean((calibrate(logits, right) - labels) ** 2))
    assert table.loc["before", ["Brier change", "low", "high"]].isna().all()
    assert 0 < table.loc["after", "low"] < table.loc["after", "Brier change"] < table.loc["after", "high"]
    assert table.loc["after, for the prevalence here", "high"] < 0
    assert len(calibration_effect(labels, logits, right, None, range(4000), 5, 1)) == 2
    assert len(calibration_effect(labels[labels], logits[labels], right, 0.7, range(labels.sum()), 5, 1)) == 2
    none = {"method": "none", "slope": 1.0, "intercept": 0.0}
    assert len(calibration_effect(labels, logits, none, 0.7, range(4000), 5, 1)) == 2


def test_a_logit_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="logits"):
        fit_calibration([0, 1], [0.0, np.nan])
    with pytest.raises(InputError, match="NaN"):
        calibrate([np.inf], {"slope": 1.0, "intercept": 0.0})


# Threshold


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("sensitivity>=0.3", 0.8),  # 1 of 3: between 0.9 and 0.7
        ("sensitivity>=0.34", 0.65),  # needs 2 of 3
        ("sensitivity>=0.97", 0.25),  # needs 3 of 3
        ("sensitivity>=1", 0.25),
        ("youden", 0.25),  # at 0.3 1 + 2/3 - 1, at 0.7 2/3 + 1 - 1: equal, so the more sensitive
        ("0.5", 0.5),
        ("1", 1.0),
    ],
)
def test_thresholds_by_hand(policy, expected):
    assert choose_threshold(LABELS, SCORES, policy) == pytest.approx(expected, abs=1e-12)


def test_threshold_below_the_lowest_score_is_half_of_it():
    assert choose_threshold([1, 0, 1], [0.2, 0.5, 0.9], "sensitivity>=0.97") == pytest.approx(0.1)
    assert choose_threshold([1, 0], [0.4, 0.4], "youden") == pytest.approx(0.2)
    assert choose_threshold([1, 0], [0.0, 0.5], "sensitivity>=0.97") == 0.0


def test_threshold_between_neighbouring_floats_still_separates_them():
    low = 0.7
    high = np.nextafter(low, 1)
    threshold = choose_threshold([0, 1], [low, high], "sensitivity>=0.97")
    assert outcomes([0, 1], [low, high], threshold).tolist() == ["TN", "TP"]


@pytest.mark.parametrize(("labels", "absent"), [([1, 1], "NORMAL"), ([0, 0], "PNEUMONIA")])
@pytest.mark.parametrize("policy", ["youden", "sensitivity>=0.97"])
def test_threshold_needs_both_classes(labels, absent, policy):
    with pytest.raises(InputError, match=absent):
        choose_threshold(labels, [0.2, 0.8], policy)
    assert choose_threshold(labels, [0.2, 0.8], "0.3") == 0.3


def test_unknown_policy_is_refused():
    with pytest.raises(InputError, match="not a policy"):
        choose_threshold(LABELS, SCORES, "specificity>=0.9")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=40),
    st.sampled_from(["sensitivity>=0.5", "sensitivity>=0.9", "sensitivity>=0.97", "youden"]),
)
def test_a_threshold_is_the_best_of_all_and_lies_between_scores(drawn, policy):
    labels, scores = np.array([label for label, _ in drawn]), np.array([step for _, step in drawn]) / 20
    if labels.all() or not labels.any():
        labels[0] = not labels[0]
    threshold = choose_threshold(labels, scores, policy)
    false_positives, sensitivity, cuts = sk.roc_curve(labels, scores, drop_intermediate=False)
    found = measure(labels, scores, threshold)
    if policy == "youden":
        assert found["sensitivity"] + found["specificity"] - 1 == pytest.approx((sensitivity - false_positives).max())
    else:
        highest = cuts[sensitivity >= float(policy.partition(">=")[2])].max()
        assert found["sensitivity"] == pytest.approx(measure(labels, scores, highest)["sensitivity"])
        assert scores[scores < highest].max(initial=0) <= threshold <= highest
    assert threshold == 0 or np.abs(scores - threshold).min() > 1e-9


# The uncertain range, operating points, decision curve


# The uncertain range, operating points, decision curve


def test_one_of_a_hundred_of_each_class_lies_beyond_the_range():
    rng = np.random.default_rng(0)
    pneumonia, normal = rng.beta(5, 2, 999), rng.beta(2, 5, 999)
    labels, probabilities = np.repeat([1, 0], 999), np.concatenate([pneumonia, normal])
    low, high = uncertain_range(labels, probabilities, 0.5)
    assert low < 0.5 < high
    assert (pneumonia < low).sum() == 9  # the tenth lowest of 999 is the edge
    assert (normal > high).sum() == 9
    fresh_pneumonia, fresh_normal = rng.beta(5, 2, 20_000), rng.beta(2, 5, 20_000)
    assert (fresh_pneumonia < low).mean() < 0.02
    assert (fresh_normal > high).mean() < 0.02


def test_of_separated_classes_all_between_them_is_uncertain():
    labels, probabilities = np.repeat([1, 0], 200), np.concatenate([np.linspace(0.8, 1, 200), np.linspace(0, 0.2, 200)])
    low, high = uncertain_range(labels, probabilities, 0.85)
    assert low == pytest.approx(0.2, abs=0.005)
    assert high == 0.85


def test_a_missing_class_leaves_its_side_of_the_range_open():
    probabilities = np.linspace(0.3, 0.6, 200)
    assert uncertain_range([1] * 200, probabilities, 0.5) == (probabilities[1], 1)
    assert uncertain_range([0] * 200, probabilities, 0.5) == (0, probabilities[-2])


def test_of_few_images_of_a_class_one_lies_beyond_the_range():
    pneumonia, normal = np.linspace(0.4, 1, 30), np.linspace(0, 0.6, 20)
    labels = np.repeat([1, 0], (30, 20))
    assert uncertain_range(labels, np.concatenate([pneumonia, normal]), 0.5) == (0.4, 0.6)


def test_operating_points_are_the_metrics_at_each_threshold():
    labels, probabilities = [1, 1, 0, 0], [0.9, 0.304, 0.5, 0.1]
    points = operating_points(labels, probabilities)
    assert points["threshold"][:3] == [0.0, 0.01, 0.02]
    assert [len(values) for values in points.values()] == [101] * 3
    assert (points["sensitivity"][30], points["specificity"][30]) == (1, 0.5)
    assert (points["sensitivity"][31], points["specificity"][31]) == (0.5, 0.5)
    assert (points["sensitivity"][100], points["specificity"][0]) == (0, 0)
    assert operating_points([1, 1], [0.2, 0.4])["specificity"] == [None] * 101


def test_certainty_counts_each_class_beyond_the_range_by_side():
    labels, probabilities = [0, 1, 1, 0, 1, 0, 0], [0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.2]
    found = certainty(labels, probabilities, (0.2, 0.6))  # the edges are within
    assert found.loc["NORMAL"].to_dict() == {"images": 4, "uncertain": 2, "right": 1, "wrong": 1}
    assert found.loc["PNEUMONIA"].to_dict() == {"images": 3, "uncertain": 1, "right": 1, "wrong": 1}
    assert certainty([0, 0], [0.3, 0.4], (0.2, 0.6)).to_numpy().tolist() == [[2, 2, 0, 0], [0, 0, 0, 0]]


def test_net_benefit_by_hand():
    labels, scores = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.5, 0.05, 0.6, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]
    found = net_benefit(labels, scores, [0.01, 0.2, 0.5])
    assert found["model"].tolist() == pytest.approx([0.3 - 0.7 / 99, 0.2 - 0.2 / 4, 0.2 - 0.1])
    assert found["treat all"].tolist() == pytest.approx([0.3 - 0.7 / 99, 0.3 - 0.7 / 4, 0.3 - 0.7])
    assert found["treat none"].tolist() == [0, 0, 0]
    for threshold in (0.0, 1.0, np.nan):
        with pytest.raises(InputError, match="decision curve"):
            net_benefit(labels, scores, [threshold])


def test_failures_are_all_wrong_answers_the_most_certain_first():
    names = np.where(LABELS, "PNEUMONIA", "NORMAL")
    table = failures(pd.DataFrame({"label": names, "probability": SCORES}), 0.4, (0.25, 0.5))
    assert table.index.tolist() == [3, 2]  # 0.6 lies further from the threshold than 0.3
    assert table["outcome"].tolist() == ["false alarms", "misses"]
    assert table["answer"].tolist() == ["certain", "uncertain"]
    assert failures(table, 0.4, None)["answer"].tolist() == ["certain", "certain"]
    assert failures(table, 0.3, None).index.tolist() == [3]  # at the threshold is positive
