"""Run the notebooks with papermill into a run folder; its records, pages, comparisons and publication."""

from helpers.run.compare import runs_table
