"""Run the notebooks with papermill into a run folder; its records, pages and publication."""

from helpers.run.beside import runs_table
