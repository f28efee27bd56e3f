"""The prediction page: widgets, answers in words, and the server behind `python -m helpers.serve`."""

from helpers.page.answer import decision, worth
from helpers.page.app import App, find_model, find_samples
