"""The prediction page: widgets, answers in words, and the server behind `python -m helpers.serve`."""

from helpers.page.answer import decision, describe_model
from helpers.page.app import App
from helpers.page.samples import find_model, find_samples
