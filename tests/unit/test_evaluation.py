"""What the reports claim rests on these numbers: hand-computed cases, scikit-learn as a second opinion, properties."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, binomtest
from sklearn import metrics as sk

from helpers import evaluation
from helpers.config import InputError
from helpers.evaluation import (
    METRICS,
    SHARES,
    bootstrap,
    calibrate,
    calibration_effect,
    choose_threshold,
    fit_calibration,
    mean_interval,
    measure,
    outcomes,
    predictive_values,
    reliability,
    summarise,
    weighted,
    where_rarer,
)

LABELS = np.array([0, 0, 1, 0, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])


def draw(n=300, seed=0, decimals=None, strength=1.5):
    """Labels and scores of n images; `decimals` makes ties."""
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.6
    scores = expit(random.normal(strength * (labels - 0.5), 1.0))
    return labels, scores if decimals is None else scores.round(decimals)


def frame(n=200, seed=0):
    labels, scores = draw(n, seed)
    kinds = np.where(np.arange(n) % 3 == 0, "virus", "bacteria")
    return pd.DataFrame(
        {
            "label": np.where(labels, "PNEUMONIA", "NORMAL"),
            "patient": [f"person{i // 2}" for i in range(n)],
            "subtype": np.where(labels, kinds, ""),
            "probability": scores,
        }
    )


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


def test_platt_lowers_the_calibration_error_of_overconfident_scores():
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


@pytest.mark.parametrize("decimals", [None, 2, 1])
@pytest.mark.parametrize("policy", ["sensitivity>=0.5", "sensitivity>=0.9", "sensitivity>=0.97", "youden"])
def test_threshold_is_the_best_of_all_and_lies_between_scores(policy, decimals):
    labels, scores = draw(157, 5, decimals)
    threshold = choose_threshold(labels, scores, policy)
    false_alarms, sensitivity, cuts = sk.roc_curve(labels, scores, drop_intermediate=False)
    found = measure(labels, scores, threshold)
    if policy == "youden":
        assert found["sensitivity"] + found["specificity"] - 1 == pytest.approx((sensitivity - false_alarms).max())
    else:
        target = float(policy.partition(">=")[2])
        highest = cuts[sensitivity >= target].max()
        assert found["sensitivity"] >= target
        assert scores[scores < highest].max(initial=0) < threshold < highest
    assert np.abs(scores - threshold).min() > 1e-9


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


# Metrics


def test_metrics_by_hand():
    found = measure(LABELS, SCORES, 0.65)  # TP 0.7 0.9, FN 0.3, no FP
    assert outcomes(LABELS, SCORES, 0.65).tolist() == ["TN", "TN", "FN", "TN", "TP", "TP"]
    assert found["auc"] == pytest.approx(8 / 9)
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == 1
    assert found["balanced_accuracy"] == pytest.approx(5 / 6)
    assert found["precision"] == 1
    assert found["npv"] == pytest.approx(3 / 4)
    assert found["f1"] == pytest.approx(4 / 5)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.49 + 0.36 + 0.09 + 0.01) / 6)
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.6 + 0.3 + 0.1) / 6)  # every score in a bin of its own
    assert tuple(found) == METRICS


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.77])
def test_metrics_agree_with_scikit_learn(decimals, threshold):
    labels, scores = draw(211, 6, decimals)
    called = scores >= threshold
    found = measure(labels, scores, threshold)
    expected = {
        "auc": sk.roc_auc_score(labels, scores),
        "average_precision": sk.average_precision_score(labels, scores),
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "sensitivity": sk.recall_score(labels, called),
        "specificity": sk.recall_score(~labels, ~called),
        "precision": sk.precision_score(labels, called),
        "npv": sk.precision_score(~labels, ~called),
        "f1": sk.f1_score(labels, called),
        "brier": sk.brier_score_loss(labels, scores),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_weighted_metrics_agree_with_scikit_learn_row_by_row():
    labels, scores = draw(120, 7, decimals=1)
    order = np.argsort(scores, kind="stable")
    labels, scores = labels[order], scores[order]
    weights = np.random.default_rng(1).poisson(1.0, (8, 120))
    found = weighted(labels, scores, 0.4, weights)
    for row, weight in enumerate(weights):
        options = {"sample_weight": weight}
        again = np.repeat(np.arange(120), weight)
        assert found["auc"][row] == pytest.approx(sk.roc_auc_score(labels, scores, **options))
        assert found["average_precision"][row] == pytest.approx(sk.average_precision_score(labels, scores, **options))
        repeated = measure(labels[again], scores[again], 0.4)
        assert {name: found[name][row] for name in repeated} == pytest.approx(repeated)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "scores", "undefined"),
    [
        ([1, 1], [0.2, 0.8], {"auc", "average_precision", "balanced_accuracy", "specificity"}),
        ([0, 0], [0.2, 0.8], {"auc", "average_precision", "balanced_accuracy", "sensitivity"}),
        ([0, 1], [0.2, 0.3], {"precision"}),
        ([0, 1], [0.7, 0.8], {"npv"}),
        ([0], [0.1], {"auc", "average_precision", "balanced_accuracy", "sensitivity", "precision", "f1"}),
    ],
)
def test_undefined_metrics_are_none(labels, scores, undefined):
    found = measure(labels, scores, 0.5)
    assert {name for name, value in found.items() if value is None} == undefined
    intervals = bootstrap(labels, scores, 0.5, labels, 20, 1)
    assert all(intervals[name] == {"value": None, "low": None, "high": None} for name in undefined)
    json.dumps(intervals, allow_nan=False)


def test_equal_scores_are_chance():
    found = measure(LABELS, np.full(6, 0.5), 0.5)
    assert (found["auc"], found["average_precision"]) == (0.5, 0.5)
    assert (found["sensitivity"], found["specificity"]) == (1, 0)  # at the threshold is positive


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("use", [measure, outcomes, lambda y, p, t: choose_threshold(y, p, "youden")])
def test_impossible_probabilities_are_refused(bad, use):
    with pytest.raises(InputError, match="1 of 2 probabilities"):
        use([0, 1], [0.5, bad], 0.5)


def test_unusable_input_is_refused():
    for labels, scores in [
        ([], []),
        ([0, 1], [0.5]),
        ([0, 2], [0.1, 0.2]),
        ([0, np.nan], [0.1, 0.2]),
        ([[1]], [[0.5]]),
    ]:
        with pytest.raises(InputError):
            measure(labels, scores, 0.5)
    with pytest.raises(InputError, match="logits"):
        fit_calibration([0, 1], [0.0, np.nan])
    with pytest.raises(InputError, match="NaN"):
        calibrate([np.inf], {"slope": 1.0, "intercept": 0.0})
    with pytest.raises(InputError, match="threshold"):
        measure(LABELS, SCORES, np.nan)
    with pytest.raises(InputError, match="patient"):
        bootstrap([0, 1], [0.2, 0.8], 0.5, ["a", None], 10, 1)
    with pytest.raises(InputError, match="patient"):
        bootstrap([0, 1], [0.2, 0.8], 0.5, ["a"], 10, 1)


def test_reliability_by_hand():
    bins = reliability([0, 1, 1, 0], [0.0, 0.3, 0.35, 1.0])
    assert bins["n"].tolist() == [1, 0, 0, 2, 0, 0, 0, 0, 0, 1]  # 0.3 opens its bin, 1 is in the last
    assert bins.loc[3, ["low", "high", "mean_probability", "observed"]].tolist() == pytest.approx([0.3, 0.4, 0.325, 1])
    assert bins["mean_probability"].isna().sum() == 7


@pytest.mark.parametrize("decimals", [None, 1])
def test_ece_is_the_weighted_gap_of_the_reliability_diagram(decimals):
    labels, scores = draw(150, 8, decimals)
    bins = reliability(labels, scores)
    expected = (bins["n"] * (bins["mean_probability"] - bins["observed"]).abs()).sum() / 150
    assert measure(labels, scores, 0.5)["ece"] == pytest.approx(expected, abs=1e-12)


# Intervals


def test_bootstrap_depends_on_seed_only():
    labels, scores = draw(500, 9, decimals=1)
    patients = np.array([f"p{i % 200}" for i in range(500)])
    first = bootstrap(labels, scores, 0.5, patients, 300, 1)
    shuffled = np.random.default_rng(0).permutation(500)
    assert first == bootstrap(labels, scores, 0.5, patients, 300, 1)
    assert first == bootstrap(labels[shuffled], scores[shuffled], 0.5, pd.Series(patients[shuffled]), 300, 1)
    assert first != bootstrap(labels, scores, 0.5, patients, 300, 2)
    assert all(first[m]["low"] <= first[m]["value"] <= first[m]["high"] for m in ("auc", "accuracy", "sensitivity"))


def test_bootstrap_of_independent_images_has_the_binomial_width():
    labels, scores = draw(400, 10)
    found = bootstrap(labels, scores, 0.5, range(400), 2000, 1)["accuracy"]
    deviation = np.sqrt(found["value"] * (1 - found["value"]) / 400)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_what_calibration_does_is_measured_and_can_be_carried_to_another_prevalence():
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    logits = rng.normal(0, 1, 4000) + 2 * labels - 1  # the log of the ratio of likelihoods is 2 x logit
    right = {"method": "platt", "slope": 2.0, "intercept": float(logit(0.7))}  # fitted where 70% have pneumonia
    table = calibration_effect(labels, logits, right, 0.7, range(4000), 200, 1)
    assert list(table.index) == ["before", "after", "after, for the share here"]
    assert table.loc["after, for the share here", "ECE"] < 0.03 < 0.1 < table.loc["after", "ECE"]
    np.testing.assert_allclose(table["ECE if perfect"].astype(float), 0.015, atol=0.01)
    assert table.loc["after", "Brier score"] == pytest.approx(np.mean((calibrate(logits, right) - labels) ** 2))
    assert table["minus before"].str[0].tolist() == ["–", "+", "-"]
    assert len(calibration_effect(labels, logits, right, None, range(4000), 5, 1)) == 2
    assert len(calibration_effect(labels[labels], logits[labels], right, 0.7, range(labels.sum()), 5, 1)) == 2
    none = {"method": "none", "slope": 1.0, "intercept": 0.0}
    assert len(calibration_effect(labels, logits, none, 0.7, range(4000), 5, 1)) == 2


def test_bootstrap_of_repeated_images_is_as_wide_as_without_the_repeats():
    # Four copies of an image tell no more than one: resampling images instead would halve the interval.
    labels, scores = draw(100, 11)
    alone = bootstrap(labels, scores, 0.5, range(100), 500, 1)
    repeated = bootstrap(np.tile(labels, 4), np.tile(scores, 4), 0.5, np.tile(range(100), 4), 500, 1)
    for name in METRICS:
        near = 0.02 if name in SHARES else 1e-9  # shares are of no more images than there are
        assert repeated[name] == pytest.approx(alone[name], abs=near), name


def test_a_share_is_never_surer_than_of_as_many_images_as_there_are():
    labels, patients = np.ones(40, int), np.repeat(range(20), 2)
    scores = np.tile([0.2, 0.8], 20)  # of each patient one is found: no resample has another sensitivity than a half
    scores[:2] = 0.8  # but those of one patient, so that resamples vary a little
    found = bootstrap(labels, scores, 0.5, patients, 500, 1)["sensitivity"]
    exact = beta.ppf([0.025, 0.975], [21, 22], [20, 19])
    assert [found["low"], found["high"]] == pytest.approx(list(exact), abs=1e-9)


def test_interval_needs_half_of_the_resamples():
    # Of two patients one is ill: half of all resamples hold both and so have an AUC. Of three resamples, as often as
    # not fewer than half do.
    found = [bootstrap([0, 1], [0.2, 0.8], 0.5, ["a", "b"], 3, seed)["auc"] for seed in range(200)]
    assert {(m["value"], m["low"], m["high"]) for m in found} == {(1, 1, 1), (1, None, None)}
    assert 70 < sum(m["low"] is None for m in found) < 130


@pytest.mark.parametrize(("sick_scores", "found", "low", "high"), [(0.9, 1.0, 0.025, 1.0), (0.1, 0.0, 0.0, 0.975)])
def test_a_share_without_errors_is_as_uncertain_as_its_patients_are_few(sick_scores, found, low, high):
    labels, patients = np.array([1] * 30 + [0] * 4), [f"p{i % 10}" for i in range(30)] + list("abcd")
    scores = np.where(labels == 1, sick_scores, [0.2, 0.3, 0.6, 0.7] * 8 + [0.2, 0.7])
    sensitivity = bootstrap(labels, scores, 0.5, patients, 50, 1)["sensitivity"]
    # Clopper and Pearson for n of n: the n-th root of 0.025; of ten patients, not of thirty images
    expected = (low ** (1 / 10), high) if found else (low, 1 - (1 - high) ** (1 / 10))
    assert sensitivity["value"] == found
    assert (sensitivity["low"], sensitivity["high"]) == pytest.approx(expected)


def test_a_share_near_one_has_the_interval_of_the_binomial_and_more_errors_give_no_higher_one():
    lows = []
    for missed in (0, 1, 2, 4, 5, 8):
        scores = np.repeat(np.where(np.arange(60) < missed, 0.1, 0.9), 2)  # two equal images of each patient
        found = bootstrap(np.ones(120), scores, 0.5, np.repeat(range(60), 2), 4000, 1)["sensitivity"]
        exact = binomtest(60 - missed, 60).proportion_ci(method="exact")
        assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=0.01)
        assert (found["high"] < 1) == (missed > 0)
        lows.append(found["low"])
    assert lows == sorted(lows, reverse=True)


def test_errors_of_one_patient_are_more_uncertain_than_those_of_many():
    scores = np.where(np.arange(200) < 10, 0.1, 0.9)
    found = []
    for whose in (np.arange(200), np.maximum(np.arange(200), 9)):
        sensitivity = bootstrap(np.ones(200), scores, 0.5, whose, 1000, 1)["sensitivity"]
        found.append((sensitivity["low"], sensitivity["high"]))
    (low, high), (low_one, high_one) = found
    assert low_one < low - 0.04
    assert high_one > high


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


def test_the_interval_of_a_mean_resamples_patients():
    hits = np.arange(200) % 4 == 0
    alone = mean_interval(hits, range(200), 1000, 1)
    repeated = mean_interval(np.repeat(hits, 5), np.repeat(range(200), 5), 1000, 1)
    assert alone["value"] == 0.25
    assert repeated == pytest.approx(alone)
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 200), rel=0.15)


def test_one_patient_has_no_spread():
    found = bootstrap(LABELS, SCORES, 0.5, ["a"] * 6, 10, 1)
    shares = {"accuracy", "sensitivity", "specificity", "precision", "npv"}  # exact: nothing to nearly everything
    assert all(m["low"] == m["high"] == pytest.approx(m["value"]) for name, m in found.items() if name not in shares)
    assert all(found[name]["low"] <= 0.03 and found[name]["high"] >= 0.97 for name in shares)


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


# The band of doubt, and operating points


def test_the_band_leaves_one_of_a_hundred_of_each_class_outside():
    rng = np.random.default_rng(0)
    ill, well = rng.beta(5, 2, 999), rng.beta(2, 5, 999)
    labels, probabilities = np.repeat([1, 0], 999), np.concatenate([ill, well])
    low, high = evaluation.uncertain_band(labels, probabilities, 0.5)
    assert low < 0.5 < high
    assert (ill < low).sum() == 9  # the tenth lowest of 999 is the edge
    assert (well > high).sum() == 9
    fresh_ill, fresh_well = rng.beta(5, 2, 20_000), rng.beta(2, 5, 20_000)
    assert (fresh_ill < low).mean() < 0.02
    assert (fresh_well > high).mean() < 0.02


def test_the_band_of_separated_classes_is_what_lies_between_them():
    labels, probabilities = np.repeat([1, 0], 200), np.concatenate([np.linspace(0.8, 1, 200), np.linspace(0, 0.2, 200)])
    low, high = evaluation.uncertain_band(labels, probabilities, 0.85)
    assert low == pytest.approx(0.2, abs=0.005)
    assert high == 0.85


def test_a_missing_class_leaves_its_side_open():
    probabilities = np.linspace(0.3, 0.6, 200)
    assert evaluation.uncertain_band([1] * 200, probabilities, 0.5) == (probabilities[1], 1)
    assert evaluation.uncertain_band([0] * 200, probabilities, 0.5) == (0, probabilities[-2])


def test_of_few_images_of_a_class_one_lies_outside():
    ill, well = np.linspace(0.4, 1, 30), np.linspace(0, 0.6, 20)
    labels = np.repeat([1, 0], (30, 20))
    assert evaluation.uncertain_band(labels, np.concatenate([ill, well]), 0.5) == (0.4, 0.6)


def test_certain_are_the_answers_outside_the_band():
    probabilities = [0.1, 0.2, 0.3, 0.5, 0.6, 0.9]
    assert evaluation.certain([0, 1, 1, 0, 1, 0], probabilities, 0.4, (0.2, 0.6)) == {"n": 2, "right": 1}
    assert evaluation.certain([0, 1], [0.3, 0.4], 0.4, (0.2, 0.6)) == {"n": 0, "right": 0}


def test_operating_points_are_the_metrics_at_each_threshold():
    labels, probabilities = [1, 1, 0, 0], [0.9, 0.304, 0.5, 0.1]
    points = evaluation.operating_points(labels, probabilities)
    assert points["threshold"][:3] == [0.0, 0.01, 0.02]
    assert [len(values) for values in points.values()] == [101] * 3
    assert (points["sensitivity"][30], points["specificity"][30]) == (1, 0.5)
    assert (points["sensitivity"][31], points["specificity"][31]) == (0.5, 0.5)
    assert (points["sensitivity"][100], points["specificity"][0]) == (0, 0)
    assert evaluation.operating_points([1, 1], [0.2, 0.4])["specificity"] == [None] * 101


def test_predictive_values_at_the_measured_prevalence_are_those_measured_and_elsewhere_bayes():
    labels, scores = draw(decimals=1)
    measured = measure(labels, scores, 0.5)
    rates = measured["sensitivity"], measured["specificity"]
    assert predictive_values(*rates, labels.mean()) == pytest.approx((measured["precision"], measured["npv"]))
    found, false, spared = 10 * rates[0], 990 * (1 - rates[1]), 990 * rates[1]  # of 1,000 images, 10 of them sick
    expected = found / (found + false), spared / (spared + 10 - found)
    assert predictive_values(*rates, 0.01) == pytest.approx(expected)
    assert predictive_values(0, 1, 0.5) == (None, 0.5)  # no alarm: none can be right
    assert predictive_values(1, 0, 0.5) == (0.5, None)
    assert predictive_values(None, 1, 0.5) == (None, None)


def test_where_pneumonia_is_rarer_precision_falls_and_the_last_row_is_what_was_measured():
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
    low, high = (
        predictive_values(summary["sensitivity"][end], summary["specificity"][end], 0.01)[0] for end in ("low", "high")
    )
    assert table["precision"].iloc[0].split()[1:] == [f"({low:.3f}", "to", f"{high:.3f})"]


def test_with_one_class_nothing_is_carried_over_and_without_intervals_none_are_shown():
    healthy = frame().query("label == 'NORMAL'")
    assert where_rarer(summarise(healthy, 0.5, "0.5", 20, 0)).empty
    one = {"value": 0.9, "low": None, "high": None}
    table = where_rarer({"sensitivity": one, "specificity": one, "prevalence": 0.1})
    assert table.index.tolist() == ["0.01", "0.05", "here: 0.100"]  # 0.2 is not rarer
    assert table["precision"].tolist() == ["0.083", "0.321", "0.500"]
