"""Metrics, intervals, calibration, decisions, tables, and published results to stand beside."""

from helpers.evaluation.calibration import calibrate, calibration_effect, fit_calibration
from helpers.evaluation.decisions import POSITIVE, certainty, choose_threshold, failures, net_benefit
from helpers.evaluation.decisions import operating_points, outcomes, uncertain_range
from helpers.evaluation.differences import RunAnswers, group_differences, mean_difference, mean_over_runs
from helpers.evaluation.differences import paired_differences
from helpers.evaluation.intervals import bootstrap, mean_interval, predictive_values
from helpers.evaluation.literature import PUBLISHED, compare_published
from helpers.evaluation.metrics import METRICS, measure, weighted
from helpers.evaluation.tables import characteristics, describe_errors, in_words, sentence, summarise, table
from helpers.evaluation.tables import where_rarer, with_interval
