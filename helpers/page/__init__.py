"""The prediction page: widgets and answers in words."""

from helpers.page.answer import decision, describe_model
from helpers.page.app import App
from helpers.page.samples import find_model, find_samples
