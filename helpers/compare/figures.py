"""The figures of a sweep's page, each an <img> with its picture inside."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from helpers import evaluation

if TYPE_CHECKING:
    from helpers.compare.many import Finished

METRICS = ("auc", "accuracy", "sensitivity", "specificity")


def _image(figure: Figure, text: str) -> Markup:
    """`figure` for a page; `text` says what it shows to who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" style="max-width: 100%">').format(data, text)


def _value(run: Finished, split: str, name: str) -> float:
    found = run.metrics.get(split, {}).get(name, {}).get("value")
    return np.nan if found is None else found


def metrics_by_group(groups: dict[str, list[Finished]]) -> Markup:
    """A point for every run, and the mean of each group, on test."""
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(groups)), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(METRICS), sharey=True), METRICS, strict=True):
        for row, runs in enumerate(groups.values()):
            values = [_value(run, "test", name) for run in runs]
            axis.plot(values, [row] * len(values), "o", color="#3b76af", alpha=0.6)
            axis.plot(np.mean(values), row, "|", color="#c2571a", markersize=18, markeredgewidth=2)
        axis.set(yticks=range(len(groups)), title=evaluation.in_words(name), ylim=(len(groups) - 0.5, -0.5))
        axis.set_yticklabels(groups)
        axis.grid(axis="x", alpha=0.4)
    return _image(figure, "AUC, accuracy, sensitivity and specificity on test: a point a run, a bar for each mean")


def validation_beside_test(groups: dict[str, list[Finished]]) -> Markup:
    """What validation promised and test kept, a point a run; on the line they are equal."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(METRICS))
    for axis, name in zip(axes, METRICS, strict=True):
        points = {
            g: [[_value(run, split, name) for split in ("validation", "test")] for run in groups[g]] for g in groups
        }
        for group, pairs in points.items():
            axis.plot(*np.transpose(pairs), "o", label=group, alpha=0.7)
        least = np.nanmin([*np.concatenate(list(points.values())).ravel(), 1])
        axis.plot([least, 1], [least, 1], color="grey", linewidth=0.8)
        axis.set(title=evaluation.in_words(name), xlabel="validation", ylabel="test")
    axes[-1].legend(frameon=False, fontsize=8)
    return _image(figure, "Each metric on validation against the same on test, a point a run")


def cost(notebooks: dict[str, dict[str, dict]]) -> Markup:
    """Seconds of every notebook, a bar a run."""
    figure = Figure(figsize=(11, 1.4 + 0.3 * len(notebooks)), layout="constrained")
    axis, start = figure.subplots(), np.zeros(len(notebooks))
    for stem in sorted({stem for entries in notebooks.values() for stem in entries}):
        seconds = [entries.get(stem, {}).get("seconds", 0) for entries in notebooks.values()]
        axis.barh(list(notebooks), seconds, left=start, label=stem)
        start += seconds
    axis.invert_yaxis()
    axis.set(xlabel="seconds")
    axis.legend(frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
    return _image(figure, "Seconds of every notebook, a bar a run")
