"""The parts of the page and how they are laid out, without what they do; widths and colours are in page.css."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets as widgets

from helpers import config
from helpers.page import session

NO_READING = "not given"
GUESSES = {"I see pneumonia": "PNEUMONIA", "I see none": "NORMAL", "Show the answer": ""}  # button -> reading


class Layout:
    """The widgets of the page."""

    def __init__(self, parts: tuple[widgets.Widget, ...], threshold: float, prevalence: float):
        self.upload, self.gallery, self.viewer = parts
        self.status, self.answer, self.table, self.meaning = (widgets.HTML() for _ in range(4))
        self.chosen = widgets.Dropdown(options=[], description="Shown")
        self.next = widgets.Button(description="Next uncertain (n)")
        self.age = widgets.Text(description="Age in years", placeholder="may stay empty", continuous_update=False)
        self.reading = widgets.Dropdown(options=[NO_READING, *config.LABELS, "unsure"], description="Your reading")
        self.guesses = [widgets.Button(description=text) for text in GUESSES]
        self.threshold = widgets.FloatSlider(
            threshold, min=0, max=1, step=0.001, description="Threshold", readout_format=".3f"
        )
        self.reset = widgets.Button(description="The model's own threshold")
        self.prevalence = widgets.BoundedFloatText(
            round(100 * prevalence, 1), min=0.1, max=99.9, description="Pneumonia in 100 patients"
        )
        self.separator = widgets.Dropdown(options=list(session.SEPARATORS), description="CSV with")
        self.row, self.noted = _row(self.chosen, self.next), _row(self.age, self.reading)
        self.guess = _row(*self.guesses)
        self.folds = [
            _fold("What does this number mean?", self.meaning, self.prevalence),
            _fold("Another threshold", self.threshold, self.reset),
        ]
        self.page = widgets.VBox(_dom_classes=("xray-page",))
        for part, _ in self.appearing(readable=False, hidden=False):
            part.layout.display = "none"

    def appearing(self, readable: bool, hidden: bool) -> Iterator[tuple[widgets.Widget, bool]]:
        """What is there from the first answer on, and whether it is for one `readable`, or `hidden` before a guess."""
        yield from ((part, True) for part in (self.row, self.separator))
        yield from ((part, readable) for part in (self.noted, *self.folds))
        yield self.guess, hidden

    def lay_out(self, head: str, about: str) -> widgets.VBox:
        """The page, below `head` and with `about` folded, both HTML."""
        self.page.children = (
            widgets.HTML(head), self.upload, self.gallery, self.status, self.row, self.answer, self.guess, self.viewer,
            self.noted, *self.folds, _fold("About this model", widgets.HTML(about)), self.table, self.separator,
        )  # fmt: skip
        return self.page


def _row(*parts: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(parts, _dom_classes=("xray-row",))


def _fold(title: str, *parts: widgets.Widget) -> widgets.VBox:
    """Parts that a button folds out."""
    button = widgets.ToggleButton(description=f"▸ {title}", _dom_classes=("xray-fold-button",))
    inside = widgets.VBox(parts, layout={"display": "none"})

    def turn(change: dict) -> None:
        button.description = f"{'▾' if change['new'] else '▸'} {title}"
        inside.layout.display = None if change["new"] else "none"

    button.observe(turn, "value")
    return widgets.VBox([button, inside], _dom_classes=("xray-fold",))
