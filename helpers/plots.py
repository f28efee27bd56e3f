"""Figures. Every function draws one and leaves it as matplotlib's current figure, for the notebook to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from numpy.typing import ArrayLike
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from helpers import dataset, evaluation

if TYPE_CHECKING:
    import keras

COLOURS = {"NORMAL": "#3b76af", "PNEUMONIA": "#c2571a"}
SPLIT_COLOURS = {"train": "#5b5b5b", "validation": "#2a9d8f", "test": "#8d4aa8"}


def use_style() -> None:
    """Set the look of all figures and tables once, in a notebook's set-up cell."""
    pd.set_option("display.max_colwidth", 100)
    sns.set_theme(
        style="whitegrid",
        rc={
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.4,
        },
    )


def patient_split(splits: pd.DataFrame) -> None:
    """Each patient as a bar, as high as the number of images, in the order of the names; coloured by split.

    `splits` is splits.csv, with a panel for each class and series of names.
    """
    named = splits["patient"] != splits["path"]
    panel = (splits["label"] + " " + dataset.series_of(splits["patient"]).where(named, "")).str.strip()
    number = splits["patient"].str.extract(r"(\d+)\D*$", expand=False).where(named, 0).astype(int)
    keys = ["panel", "number", "patient", "split"]
    patients = splits.assign(panel=panel, number=number).groupby(keys).size().rename("images").reset_index()
    panels = list(patients.groupby("panel"))
    figure, axes = plt.subplots(len(panels), 1, figsize=(10, 0.6 + 1.1 * len(panels)), squeeze=False, sharex=True)
    for axis, (name, part) in zip(axes.flat, panels, strict=True):
        for split, colour in SPLIT_COLOURS.items():
            heights = part["images"].where(part["split"] == split, 0)
            axis.stairs(heights, np.arange(len(part) + 1), fill=True, color=colour, label=split)
        axis.set(ylabel="images", xlim=(0, None))
        axis.set_title(name, loc="left", fontsize=9)
    axes.flat[-1].set_xlabel("patients, in the order of their names")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)


def image_flow(flow: pd.DataFrame) -> None:
    """The images on their way from the folder to train, validation and test, as a flow diagram (as in CONSORT).

    Parameters
    ----------
    flow : DataFrame
        As from `dataset.image_flow`.
    """
    steps, left_out = flow.set_index("step"), flow[flow["step"] == "excluded"]
    places = {"found": (0, 2), "used": (0, 1), "train": (-1, 0), "validation": (0, 0), "test": (1, 0)}
    _, axis = plt.subplots(figsize=(9.6, 4.4))
    for name, place in places.items():
        row, edge = (
            steps.loc[name],
            {"fc": "white", "ec": SPLIT_COLOURS.get(name, "black"), "boxstyle": "round,pad=0.5"},
        )
        text = f"{name}: {row['images']:,} images\n{row['patients']:,} patients\n"
        text += f"normal {row['NORMAL']:,}, pneumonia {row['PNEUMONIA']:,}"
        axis.annotate(text, place, ha="center", va="center", fontsize=10, bbox=edge)
    for start, end in (("found", "used"), ("used", "train"), ("used", "validation"), ("used", "test")):
        (x, y), (x_end, y_end) = places[start], places[end]
        axis.annotate("", (x_end, y_end + 0.25), (x, y - 0.25), arrowprops={"arrowstyle": "->", "color": "grey"})
    reasons = [f"{row.images:,}: {row.why}" for row in left_out.itertuples()]
    axis.annotate(
        "\n".join([f"excluded: {left_out['images'].sum():,} images", *reasons]), (0, 1.5), (0.25, 1.5), va="center",
        fontsize=9, arrowprops={"arrowstyle": "<-", "color": "grey"}, bbox={"fc": "white", "ec": "grey", "pad": 6},
    )  # fmt: skip
    axis.set(xlim=(-1.4, 1.4), ylim=(-0.3, 2.3))
    axis.axis("off")


def network(classifier: keras.Model) -> None:
    """A classifier as boxes: feature maps, as high as their side, then the head; what learns is orange.

    Parameters
    ----------
    classifier : keras.Model
        With a head from the layer "pooling" on.
    """
    start = classifier.layers.index(classifier.get_layer("pooling"))
    body, head = classifier.layers[:start], classifier.layers[start:]
    by_side: dict[int, list[keras.layers.Layer]] = {}
    side = body[0].output.shape[1]
    for layer in body:  # in order: layers without weights belong to those before them
        shape = layer.output.shape
        side = shape[1] if layer.weights and len(shape) == 4 and shape[1] > 1 else side
        by_side.setdefault(side, []).append(layer)
    boxes = [(f"{side} × {side}", by_side[side], side / max(by_side)) for side in sorted(by_side, reverse=True)]
    boxes += [(layer.name, [layer], 0.25) for layer in head]
    _, axis = plt.subplots(figsize=(11, 3.4))
    for x, (name, members, height) in enumerate(boxes):
        learns = any(layer.trainable_weights for layer in members)
        axis.bar(x, height, 0.55, color=COLOURS["PNEUMONIA"] if learns else "#c9ced3", bottom=-height / 2)
        size, weights = members[-1].output.shape[-1], sum(layer.count_params() for layer in members)
        text = f"{name}\n{size} {'maps' if members[0] in body else 'numbers' if size > 1 else 'number'}"
        axis.text(x, -0.56, text, ha="center", va="top", fontsize=9)
        axis.text(x, height / 2 + 0.03, f"{weights:,}\nweights" if weights else "", ha="center", fontsize=9)
    axis.set(xlim=(-0.6, len(boxes) - 0.4), ylim=(-0.85, 0.75), title="left: pixels in; right: probability out")
    axis.legend(
        [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in ("#c9ced3", COLOURS["PNEUMONIA"])],
        ["frozen, or nothing to learn", "learns"], loc="upper right", frameon=False,
    )  # fmt: skip
    axis.axis("off")


def image_facts(manifest: pd.DataFrame, facts: pd.DataFrame) -> None:
    """Distributions by class, in train: width, aspect ratio, mean grey level and file size.

    Parameters
    ----------
    manifest, facts : DataFrame, one row an image
        As from `dataset.scan`. Rows of test, and files that could not be decoded, are left out.
    """
    use = (manifest["split"] != "test") & facts["mean"].notna()
    shown = pd.DataFrame(
        {
            "label": manifest["label"][use],
            "width, pixels": manifest["width"][use],
            "width / height": (manifest["width"] / manifest["height"].where(manifest["height"] > 0))[use],
            "mean grey level (0-255)": facts["mean"][use],
            "file size, kB": facts["bytes"][use] / 1000,
        }
    )
    _, axes = plt.subplots(1, 4, figsize=(12, 2.9))
    for axis, column in zip(axes, shown.columns[1:], strict=True):
        sns.histplot(
            shown, x=column, hue="label", palette=COLOURS, bins=30, stat="proportion", common_norm=False,
            element="step", alpha=0.35, ax=axis, legend=axis is axes[-1],
        )  # fmt: skip
        axis.set(ylabel="proportion" if axis is axes[0] else "")
    sns.move_legend(axes[-1], "upper left", bbox_to_anchor=(1.0, 1.0), title="", frameon=False)


def shortcut_bars(table: pd.DataFrame) -> None:
    """What a classifier could cheat with: the AUC of each fact alone, by split.

    Parameters
    ----------
    table : DataFrame of float in [0, 1]
        A row for each fact, a column for each split, as from `dataset.shortcuts` without its column p. 0.5 says
        nothing; less than that points the other way than in train.
    """
    colours = [SPLIT_COLOURS[name] for name in table.columns]
    axes = (table - 0.5).plot.barh(left=0.5, figsize=(8, 0.8 + 0.5 * len(table)), width=0.7, color=colours)
    axes.axvline(0.5, color="black", linewidth=1)
    lowest = min(0.45, table.min(axis=None) - 0.03)
    axes.set(xlim=(lowest, 1.02), xlabel="AUC of this fact alone (0.5: tells nothing)", ylabel="")
    axes.grid(axis="y", visible=False)
    axes.legend(title="", bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)


def image_grid(images: list[np.ndarray], titles: list[str], columns: int = 4, width: float = 11) -> None:
    """Images with a title each.

    Parameters
    ----------
    images : list of uint8 arrays, shape (height, width) or (height, width, 3)
        Of any size.
    titles : list of str
        As many.
    columns : int
        Images a row.
    width : float
        Of the figure, in inches.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width, rows * (width / columns + 0.25)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
        axis.set_title(title, fontsize=9)
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)


def learning_curves(history: pd.DataFrame, title: str) -> None:
    """Loss in training and validation, and validation AUC, by epoch; a ring marks the epoch that was kept.

    Parameters
    ----------
    history : DataFrame, one row an epoch
        Columns epoch, loss, val_loss and, where it was measured, val_auc.
    title : str
        Of the left panel.
    """
    best = history.loc[history["val_loss"].idxmin()]
    panels = 2 if "val_auc" in history else 1
    _, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.4), squeeze=False)
    left = axes[0, 0]
    left.plot(history["epoch"], history["loss"], "o-", ms=4, color=SPLIT_COLOURS["train"], label="train, augmented")
    validation = "validation, calibrated" if panels == 2 else "validation"
    left.plot(history["epoch"], history["val_loss"], "o-", ms=4, color=SPLIT_COLOURS["validation"], label=validation)
    left.plot(best["epoch"], best["val_loss"], "o", ms=12, mfc="none", mec="black", label="kept")
    left.set(xlabel="epoch (0: before training)", ylabel="loss", title=title)
    left.figure.legend(loc="outside lower center", ncols=3, frameon=False)
    if panels == 2:
        right = axes[0, 1]
        right.plot(history["epoch"], history["val_auc"], "o-", ms=4, color=SPLIT_COLOURS["validation"])
        right.plot(best["epoch"], best["val_auc"], "o", ms=12, mfc="none", mec="black")
        right.set(xlabel="epoch", ylabel="validation AUC", title="ranking")
    for axis in axes.flat:
        axis.xaxis.get_major_locator().set_params(integer=True)


def confusion_matrices(summaries: dict[str, dict]) -> None:
    """A confusion matrix for each split, with counts and proportions of each true class.

    Parameters
    ----------
    summaries : dict of dict
        The name of a split -> its block of metrics.json, as from `evaluation.summarise`.
    """
    _, axes = plt.subplots(1, len(summaries), figsize=(4.0 * len(summaries), 3.3), squeeze=False)
    for axis, (name, summary) in zip(axes.flat, summaries.items(), strict=True):
        c = summary["confusion"]
        counts = np.array([[c["tn"], c["fp"]], [c["fn"], c["tp"]]])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        matrix = ConfusionMatrixDisplay(shares, display_labels=list(COLOURS))
        matrix.plot(cmap="Blues", ax=axis, colorbar=False, im_kw={"vmin": 0, "vmax": 1}, text_kw={"fontsize": 11})
        for text, count, share in zip(matrix.text_.flat, counts.flat, shares.flat, strict=True):
            text.set_text(f"{count}\n{share:.1%}")
        axis.grid(visible=False)
        axis.set(xlabel="predicted", ylabel="true", title=f"{name} (n = {summary['n']})")


def _by_split(predictions: pd.DataFrame) -> list[tuple[str, pd.Series, pd.Series, str]]:
    """(name, whether it shows pneumonia, probability, colour) of validation and test, as far as they are there."""
    parts = ((name, predictions[predictions["split"] == name]) for name in ("validation", "test"))
    return [(n, p["label"] == "PNEUMONIA", p["probability"], SPLIT_COLOURS[n]) for n, p in parts if len(p)]


def ranking_curves(predictions: pd.DataFrame, threshold: float) -> None:
    """ROC and precision-recall curves of validation and test, with the operating point chosen on validation.

    Parameters
    ----------
    predictions : DataFrame, one row an image
        Columns split (validation, test; either may be missing), label and probability.
    threshold : float in [0, 1]
        The operating point.
    """
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    for name, truth, score, colour in _by_split(predictions):
        if truth.nunique() == 2:
            RocCurveDisplay.from_predictions(truth, score, ax=left, curve_kwargs={"color": colour, "label": name})
            PrecisionRecallDisplay.from_predictions(
                truth, score, ax=right, curve_kwargs={"color": colour, "label": name}
            )
            found = evaluation.measure(truth, score, threshold)
            left.plot(1 - found["specificity"], found["sensitivity"], "o", color=colour, mec="black")
            right.plot([found["sensitivity"]], [found["precision"]], "o", color=colour, mec="black")  # or None
    left.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (dots: at the threshold)", aspect="auto")
    right.set(xlabel="sensitivity (recall)", ylabel="precision", title="Precision-recall", aspect="auto")
    right.set(ylim=(None, 1.02))
    left.legend(frameon=False, loc="lower right")
    right.legend(frameon=False, loc="lower left")


def reliability_diagram(predictions: pd.DataFrame) -> None:
    """Observed proportion of pneumonia against mean predicted probability, in bins; on the diagonal they agree.

    Parameters
    ----------
    predictions : DataFrame, one row an image
        Columns split (validation, test; either may be missing), label and probability.
    """
    _, axis = plt.subplots(figsize=(5.8, 4.2))
    for name, truth, score, colour in _by_split(predictions):
        bins = evaluation.reliability(truth, score).query("n > 0")
        x, y, area = bins["mean_probability"], bins["observed"], 12 + 250 * bins["n"] / bins["n"].sum()
        axis.plot(x, y, "-", color=colour, alpha=0.5, linewidth=1)
        axis.scatter(x, y, s=area, color=colour, alpha=0.7, label=name)
    axis.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    axis.set(xlabel="predicted probability", ylabel="observed share of pneumonia", title="Reliability (area: images)")
    axis.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")


def decision_curve(labels: ArrayLike, probabilities: ArrayLike, highest: float = 0.5) -> None:
    """Net benefit of acting on the model, on everyone and on no one, over threshold probabilities.

    Parameters
    ----------
    labels, probabilities
        As in `evaluation.net_benefit`.
    highest : float in (0, 1)
        The curve goes from 0.01 to here. Screening acts at low probabilities: at 0.5 a missed pneumonia would be no
        worse than a false alarm.
    """
    curve = evaluation.net_benefit(labels, probabilities, np.linspace(0.01, highest, 100))
    axis = curve.plot(figsize=(6.4, 3.6), style=["-", "--", ":"], color=[COLOURS["PNEUMONIA"], "grey", "black"])
    top = curve.to_numpy().max()
    axis.set(xlabel="threshold probability", ylabel="net benefit per image", ylim=(-0.1 * top - 0.01, 1.1 * top + 0.01))
    axis.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")


def metric_intervals(summaries: dict[str, dict], names: tuple[str, ...]) -> None:
    """Validation beside test: each metric with its 95% interval.

    Parameters
    ----------
    summaries : dict of dict
        The name of a split -> its block of metrics.json, as from `evaluation.summarise`.
    names : tuple of str
        Which of METRICS.
    """
    _, axis = plt.subplots(figsize=(8, 0.9 + 0.42 * len(names)))
    for shift, (split, summary) in zip((-0.13, 0.13), summaries.items(), strict=False):
        rows, height = pd.DataFrame([summary[name] for name in names], dtype=float), np.arange(len(names)) + shift
        axis.hlines(height, rows["low"], rows["high"], color=SPLIT_COLOURS[split], linewidth=2, alpha=0.6)
        axis.plot(rows["value"], height, "o", color=SPLIT_COLOURS[split], label=split)
    axis.set(yticks=range(len(names)), xlabel="value, with 95% interval")
    axis.set_yticklabels([evaluation.in_words(name) for name in names])
    axis.invert_yaxis()
    axis.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")


def probability_histogram(predictions: pd.DataFrame, threshold: float) -> None:
    """Predicted probabilities by true class, validation beside test, with the threshold.

    Parameters
    ----------
    predictions : DataFrame, one row an image
        Columns split (validation, test; either may be missing), label and probability.
    threshold : float in [0, 1]
        The operating point.
    """
    names = [name for name, *_ in _by_split(predictions)]
    _, axes = plt.subplots(1, len(names), figsize=(4.8 * len(names), 3), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=True):
        sns.histplot(
            predictions[predictions["split"] == name], x="probability", hue="label", palette=COLOURS, bins=25,
            binrange=(0, 1), element="step", alpha=0.4, ax=axis, legend=axis is axes.flat[-1],
        )  # fmt: skip
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axis.set(title=f"{name} (dashed: threshold)", ylabel="images")


def localisation_bars(scores: pd.DataFrame) -> None:
    """Pointing game and activation inside the true opacity, by method, against chance.

    Parameters
    ----------
    scores : DataFrame of float in [0, 1]
        A row for each method, three columns.
    """
    axes = scores.plot.bar(figsize=(7, 3.2), rot=0, color=["#c2571a", "#e9a15b", "#b8b8b8"], width=0.75)
    axes.set(ylabel="share", ylim=(0, 1))
    for bars in axes.containers:
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    axes.grid(axis="x", visible=False)
