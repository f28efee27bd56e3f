"""Intervals: what must hold of any, the rule where nothing varies, and how often they hold the truth."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import evaluation
from helpers.config import InputError
from helpers.evaluation import METRICS, bootstrap, mean_difference, mean_interval, paired_differences, predictive_values
from tests import notebook_code
from tests.benchmarks import coverage

EASY = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def images(draw):
    """Labels, scores with ties, and patients of one to many images; a class may be missing."""
    size = draw(st.integers(1, 30))
    labels = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(0, 10), min_size=size, max_size=size))
    patients = draw(st.lists(st.sampled_from("abcdefghij"), min_size=size, max_size=size))
    return np.array(labels), np.array(scores) / 10, np.array(patients)


@EASY
@given(images())
def test_every_interval_holds_its_value_within_0_and_1(drawn):
    labels, scores, patients = drawn
    found = bootstrap(labels, scores, 0.5, patients, 40, 1)
    json.dumps(found, allow_nan=False)
    assert tuple(found) == METRICS
    for name, metric in found.items():
        if metric["value"] is None:
            assert (metric["low"], metric["high"]) == (None, None), name
        elif metric["low"] is not None:
            assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1, name
            assert metric["low"] < metric["high"], name


@EASY
@given(images(), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_no_byte(drawn, random):
    labels, scores, patients = drawn
    shuffled = list(range(len(labels)))
    random.shuffle(shuffled)
    first = bootstrap(labels, scores, 0.5, patients, 40, 1)
    assert first == bootstrap(labels[shuffled], scores[shuffled], 0.5, pd.Series(patients[shuffled]), 40, 1)


@EASY
@given(images())
def test_repeating_every_image_narrows_no_interval(drawn):
    # Copies of an image tell no more than one: resampling images instead of patients would halve the interval.
    labels, scores, patients = drawn
    alone = bootstrap(labels, scores, 0.5, patients, 40, 1)
    repeated = bootstrap(np.tile(labels, 4), np.tile(scores, 4), 0.5, np.tile(patients, 4), 40, 1)
    for name in METRICS:
        assert repeated[name] == pytest.approx(alone[name], abs=1e-9), name


@EASY
@given(images())
def test_exchanging_the_classes_exchanges_their_intervals(drawn):
    labels, scores, patients = drawn
    scores = scores * 0.98 + 0.01  # none at the threshold
    one = bootstrap(labels, scores, 0.55, patients, 40, 1)
    other = bootstrap(~labels, 1 - scores, 0.45, patients, 40, 1)
    pairs = {"auc": "auc", "sensitivity": "specificity", "precision": "npv", "accuracy": "accuracy", "brier": "brier"}
    for name, counterpart in pairs.items():
        assert one[name] == pytest.approx(other[counterpart], abs=1e-9), name


@EASY
@given(images(), st.lists(st.integers(0, 10), min_size=30, max_size=30))
def test_a_difference_changes_its_sign_with_the_order_of_models(drawn, others):
    labels, scores, patients = drawn
    one, other = (scores, 0.5), (np.array(others[: len(labels)]) / 10, 0.4)
    there = paired_differences(labels, one, other, patients, 40, 1)
    back = paired_differences(labels, other, one, patients, 40, 1)
    for name in METRICS:
        if there[name]["low"] is None:
            continue
        mirrored = {"difference": -back[name]["difference"], "low": -back[name]["high"], "high": -back[name]["low"]}
        assert there[name] == pytest.approx(mirrored | {"p": back[name]["p"]}, abs=1e-9), name
        assert there[name]["low"] <= there[name]["difference"] <= there[name]["high"], name
        assert 0 <= there[name]["p"] <= 1, name


def test_the_seed_decides_and_independent_images_give_the_binomial_width():
    rng = np.random.default_rng(10)
    labels, scores = rng.random(400) < 0.6, rng.random(400)
    found = bootstrap(labels, scores, 0.5, range(400), 2000, 1)
    assert found != bootstrap(labels, scores, 0.5, range(400), 2000, 2)
    deviation = np.sqrt(found["accuracy"]["value"] * (1 - found["accuracy"]["value"]) / 400)
    assert found["accuracy"]["high"] - found["accuracy"]["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.1)


@pytest.mark.parametrize(("scores", "low", "high"), [((0.1, 0.9), 0.025, 1.0), ((0.9, 0.1), 0.0, 0.975)])
def test_where_all_is_right_or_wrong_the_fewest_patients_set_the_interval(scores, low, high):
    labels, patients = np.repeat([0, 1], (20, 30)), [f"n{i}" for i in range(20)] + [f"p{i % 10}" for i in range(30)]
    found = bootstrap(labels, np.array(scores)[labels], 0.5, patients, 50, 1)
    for name, fewest in (("auc", 10), ("sensitivity", 10), ("specificity", 20), ("accuracy", 30), ("f1", 10)):
        bounds = (low ** (1 / fewest), 1) if high == 1 else (0, 1 - (1 - high) ** (1 / fewest))  # Clopper and Pearson
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(bounds), name


def test_more_errors_give_no_higher_interval():
    found = []
    for missed in (0, 1, 2, 4, 5, 8):
        scores = np.repeat(np.where(np.arange(60) < missed, 0.1, 0.9), 2)  # two equal images of each patient
        found.append(bootstrap(np.ones(120), scores, 0.5, np.repeat(range(60), 2), 4000, 1)["sensitivity"])
        assert (found[-1]["high"] < 1) == (missed > 0)
    assert [one["low"] for one in found] == sorted((one["low"] for one in found), reverse=True)


def test_errors_of_one_patient_are_more_uncertain_than_those_of_many():
    scores = np.where(np.arange(200) < 10, 0.1, 0.9)
    many, one = (
        bootstrap(np.ones(200), scores, 0.5, whose, 1000, 1)["sensitivity"]
        for whose in (np.arange(200), np.maximum(np.arange(200), 9))
    )
    assert one["low"] < many["low"] - 0.04
    assert one["high"] > many["high"]


def test_an_interval_needs_half_of_the_resamples():
    # Of two patients one has pneumonia: half of all resamples hold both and so have an AUC. Of three resamples, as
    # often as not fewer than half do.
    found = [bootstrap([0, 1], [0.2, 0.8], 0.5, ["a", "b"], 3, seed)["auc"] for seed in range(200)]
    assert all(m == pytest.approx({"value": 1, "low": 0.025, "high": 1}) for m in found if m["low"] is not None)
    assert 70 < sum(m["low"] is None for m in found) < 130


def test_a_mean_resamples_patients_and_twenty_ones_are_not_certain():
    hits = np.arange(200) % 4 == 0
    alone = mean_interval(hits, range(200), 1000, 1)
    assert mean_interval(np.repeat(hits, 5), np.repeat(range(200), 5), 1000, 1) == pytest.approx(alone)
    assert alone["value"] == 0.25
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 200), rel=0.15)
    ones = {"value": 1, "low": 0.025 ** (1 / 20), "high": 1}
    assert mean_interval([1] * 20, range(20), 100, 1) == pytest.approx(ones)


def test_a_difference_of_means_is_paired_and_equal_hits_leave_it_open():
    rng, unseen = np.random.default_rng(3), 1 - 0.025 ** (1 / 20)
    one, whose = rng.random(400) < 0.7, np.arange(400) // 4
    other = np.where(rng.random(400) < 0.1, True, one)
    found = mean_difference(one, other, whose, 1000, 1)
    assert found["difference"] == pytest.approx(other.mean() - one.mean())
    assert 0 < found["low"] < found["difference"] < found["high"]
    own = mean_interval(one, whose, 1000, 1)
    assert found["high"] - found["low"] < 0.7 * (own["high"] - own["low"])
    same = mean_difference([0, 1] * 10, [0, 1] * 10, range(20), 100, 1)
    assert same == pytest.approx({"difference": 0, "low": -unseen, "high": unseen, "p": 1})


def test_equal_decisions_and_two_perfect_models_leave_a_difference_open():
    labels, unseen = np.repeat([0, 1], 20), 1 - 0.025 ** (1 / 20)
    scores = np.where(np.arange(40) % 10 == 0, 0.5, labels)
    same = paired_differences(labels, (scores, 0.5), (scores, 0.5), range(40), 50, 1)["sensitivity"]
    perfect = paired_differences(labels, (labels, 0.5), (labels, 0.5), range(40), 50, 1)["auc"]
    for found in (same, perfect):
        assert found == pytest.approx({"difference": 0, "low": -unseen, "high": unseen, "p": 1})


@pytest.mark.parametrize(
    "call",
    [
        lambda patients, resamples: bootstrap([0, 1], [0.2, 0.8], 0.5, patients, resamples, 1),
        lambda patients, resamples: mean_interval([0, 1], patients, resamples, 1),
        lambda patients, resamples: paired_differences([0, 1], ([0.2, 0.8], 0), ([0, 1], 0), patients, resamples, 1),
    ],
)
def test_a_missing_patient_and_too_few_resamples_are_refused(call):
    for patients in (["a", None], ["a", np.nan], ["a"]):
        with pytest.raises(InputError, match="need a patient each"):
            call(patients, 10)
    with pytest.raises(InputError, match="resamples=1"):
        call(["a", "b"], 1)


def test_a_mean_of_values_out_of_bounds_is_refused():
    for values in ([0.5, np.nan], [0.5, -0.5], []):
        with pytest.raises(InputError, match="values from 0 to 1"):
            mean_interval(values, range(len(values)), 10, 1)


def test_predictive_values_vary_less_than_with_both_rates_at_a_bound():
    found = {"value": 0.95, "low": 0.9, "high": 0.98}
    spared = {"value": 0.8, "low": 0.7, "high": 0.87}
    precision, npv = predictive_values(found, spared, 0.05)
    assert precision["value"] == pytest.approx(0.0475 / (0.0475 + 0.19))
    assert 0.045 / (0.045 + 0.285) < precision["low"] < 0.0475 / (0.0475 + 0.285)  # both, or specificity alone
    assert 0.0475 / (0.0475 + 0.1235) < precision["high"] < 0.049 / (0.049 + 0.1235)
    assert 0 < npv["low"] < npv["value"] < npv["high"] < 1
    assert predictive_values(found | {"low": None}, spared, 0.05)[1] == npv | {"low": None, "high": None}
    perfect = predictive_values(found, {"value": 1.0, "low": 0.97, "high": 1.0}, 0.05)[0]
    assert (perfect["value"], perfect["high"]) == (1, 1)
    assert perfect["low"] < 0.0475 / (0.0475 + 0.0285)


def test_predictive_values_are_those_measured_here_and_bayes_elsewhere():
    labels, scores = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9]
    found = bootstrap(labels, scores, 0.4, range(6), 50, 1)
    here, rare = (predictive_values(found["sensitivity"], found["specificity"], share) for share in (0.5, 0.01))
    assert [metric["value"] for metric in here] == pytest.approx([found["precision"]["value"], found["npv"]["value"]])
    hits, alarms, cleared = 10 * 2 / 3, 990 / 3, 990 * 2 / 3  # of 1,000 images, 10 with pneumonia
    expected = hits / (hits + alarms), cleared / (cleared + 10 - hits)
    assert [metric["value"] for metric in rare] == pytest.approx(expected)
    rate = {value: {"value": value, "low": None, "high": None} for value in (0.0, 1.0, None)}
    for rates, values in (((0.0, 1.0), [None, 0.5]), ((1.0, 0.0), [0.5, None]), ((None, 1.0), [None, None])):
        assert [m["value"] for m in predictive_values(rate[rates[0]], rate[rates[1]], 0.5)] == values


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 300 test sets of 219 patients at an AUC of 0.985, of which the percentile bootstrap misses one in ten.
    population, held = coverage.POPULATIONS[0], []
    true = coverage.truth(coverage.draw(population, 100_000, 2**31), population.threshold)
    for seed in range(300):
        drawn = coverage.draw(population, population.patients, seed)
        positive, probability = drawn["label"] == "PNEUMONIA", drawn["probability"]
        found = bootstrap(positive, probability, population.threshold, drawn["patient"], 100, seed)
        held.append({name: metric["low"] <= true[name] <= metric["high"] for name, metric in found.items()})
    covered = pd.DataFrame(held).mean()
    assert covered.between(0.92, 0.98).all(), covered


RANDOM = np.random.default_rng(7)
LABELS, PEOPLE = np.arange(90) % 2, np.arange(90) // 3
SCORES = np.clip(0.5 + 0.3 * (LABELS - 0.5) + RANDOM.normal(0, 0.25, 90), 0, 1)


def test_one_run_is_its_own_mean_and_the_same_run_twice_too():
    one = evaluation.RunAnswers(LABELS, SCORES, 0.5, PEOPLE, 3)
    alone = evaluation.bootstrap(LABELS, SCORES, 0.5, PEOPLE, 200, 3)
    for found in (evaluation.mean_over_runs([one], 200), evaluation.mean_over_runs([one, one], 200)):
        for name in ("auc", "specificity", "brier"):
            assert {key: found[name][key] for key in ("value", "low", "high")} == pytest.approx(alone[name])
            assert found[name]["least"] == found[name]["most"] == pytest.approx(alone[name]["value"])


def test_runs_on_other_images_are_drawn_by_themselves_and_narrow_the_mean():
    runs = [evaluation.RunAnswers(LABELS, SCORES, 0.5, PEOPLE, seed) for seed in (3, 4)]
    alone, both = (evaluation.mean_over_runs(some, 500)["auc"] for some in (runs[:1], runs))
    assert both["high"] - both["low"] < 0.85 * (alone["high"] - alone["low"])


def test_groups_of_one_run_differ_as_two_runs_do():
    better = np.clip(SCORES + 0.1 * (LABELS - 0.5), 0, 1)
    one, other = (evaluation.RunAnswers(LABELS, scores, 0.5, PEOPLE, 0) for scores in (SCORES, better))
    pairs = evaluation.paired_differences(LABELS, (SCORES, 0.5), (better, 0.5), PEOPLE, 300)
    groups = evaluation.group_differences([one, one], [other, other], 300)
    assert groups["auc"] == pytest.approx(pairs["auc"])


def test_notebook_04_says_where_patients_are_too_few_for_an_interval():
    truth, p = np.array([False, True]), np.array([0.2, 0.9])
    found = paired_differences(truth, (p, 0.5), (p, 0.5), ["a", "b"], resamples=100)["auc"]
    assert found["low"] is None
    said: list[str] = []
    cell = {"truth": truth, "before": (p,), "after": (p,), "auc": found, "validation": pd.DataFrame(index=range(2))}
    exec(notebook_code.cell("04_fine_tuning", "gain"), cell | {"changed": 0, "Markdown": said.append})
    assert "from 1.000 to 1.000. The difference is +0.000. There are too few patients for an interval." in said[0]
