"""Metrics, intervals, calibration, decisions, and published results to stand beside."""

from helpers.evaluation.decisions import POSITIVE, calibrate, calibration_effect, certain, choose_threshold
from helpers.evaluation.decisions import fit_calibration, in_words, operating_points, outcomes, sentence, summarise
from helpers.evaluation.decisions import table, uncertain_band, where_rarer, with_interval
from helpers.evaluation.intervals import SHARES, bootstrap, mean_interval, paired_differences
from helpers.evaluation.literature import PUBLISHED, compare_published
from helpers.evaluation.metrics import METRICS, measure, predictive_values, reliability, weighted
