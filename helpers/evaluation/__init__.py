"""Metrics, intervals, calibration, decisions, tables, and published results to stand beside."""

from helpers.evaluation.calibration import calibrate, calibration_effect, fit_calibration
from helpers.evaluation.decisions import POSITIVE, certainty, choose_threshold, net_benefit, operating_points, outcomes
from helpers.evaluation.decisions import uncertain_range
from helpers.evaluation.intervals import bootstrap, mean_difference, mean_interval, paired_differences
from helpers.evaluation.intervals import predictive_values
from helpers.evaluation.literature import PUBLISHED, compare_published
from helpers.evaluation.metrics import METRICS, measure, reliability, weighted
from helpers.evaluation.tables import characteristics, in_words, sentence, summarise, table, where_rarer, with_interval
