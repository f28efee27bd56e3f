"""Figures. Every function draws one and leaves it as matplotlib's current figure, for the notebook to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.colors import ListedColormap
from sklearn.metrics import ConfusionMatrixDisplay

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


def caption(*sentences: str) -> None:
    """Show the figures drawn so far and, below them, a paragraph in Markdown: what they say."""
    plt.show()
    display(Markdown(" ".join(sentences)))


def scrollable(table: pd.DataFrame) -> None:
    """Show all rows of a table, in a box that scrolls where they are many."""
    box = '<div class="wide" tabindex="0" style="max-height: 18em; overflow-y: auto">{}</div>'
    display(HTML(box.format(table.to_html(index=False, float_format="{:.4f}".format))))


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
        row = steps.loc[name]
        edge = {"fc": "white", "ec": SPLIT_COLOURS.get(name, "black"), "boxstyle": "round,pad=0.5"}
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
        A row for each fact, a column for each split, as from `dataset.shortcuts` without p and the side. 0.5 says
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


def failure_pages(failures: pd.DataFrame, pixels: np.ndarray, most: int, page: int = 12) -> None:
    """Images that got a wrong answer, as many figures as it takes.

    Parameters
    ----------
    failures : DataFrame, one row an image
        Columns row (of `pixels`), label, subtype, probability and answer, as from `evaluation.failures`.
    pixels : uint8 array, shape (n, size, size)
        The image cache.
    most, page : int
        How many images to show in all, and in one figure.
    """
    for start in range(0, min(len(failures), most), page):
        shown = failures.iloc[start : min(start + page, most)]
        titles = [f"{s.subtype or s.label}\np = {s.probability:.3f}, {s.answer}" for s in shown.itertuples()]
        image_grid(list(pixels[shown["row"]]), titles)


def heatmap_rows(
    films: np.ndarray, maps: dict[str, np.ndarray], titles: list[str], outlines: np.ndarray | None = None
) -> None:
    """A row for each image: the image, and under each heatmap, with a colour bar.

    Parameters
    ----------
    films : uint8 array, shape (n, size, size)
        The images.
    maps : dict of float array, shape (n, size, size), 0 to 1
        Method -> heatmaps, as from `explain.heatmaps`.
    titles : list of str
        Of the images.
    outlines : bool array, shape (n, size, size), or None
        True masks of opacities, drawn as a line; an empty one draws none.
    """
    hot = matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))
    hot[:, 3] = np.linspace(0, 0.7, 256)  # cold regions stay as they were
    style = {"cmap": ListedColormap(hot), "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    columns = 1 + len(maps)
    figure, axes = plt.subplots(len(films), columns, figsize=(3.1 * columns, 3.2 * len(films)), squeeze=False)
    for row, (film, title) in enumerate(zip(films, titles, strict=True)):
        for axis, name in zip(axes[row], (title, *maps), strict=True):
            axis.axis("off")
            axis.set_title(name, fontsize=10)
            axis.imshow(film, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
            if outlines is not None and outlines[row].any():
                axis.contour(outlines[row], [0.5], colors="#4fd1ff", linewidths=1)
        for axis, heat in zip(axes[row, 1:], maps.values(), strict=True):
            shown = axis.imshow(heat[row], **style)
    label = "activation, of the map's highest"
    figure.colorbar(shown, ax=axes, location="bottom", shrink=0.4, aspect=30, pad=0.01, label=label)


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
    names = [name for name in ("validation", "test") if (predictions["split"] == name).any()]
    _, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=True):
        sns.histplot(
            predictions[predictions["split"] == name], x="probability", hue="label", palette=COLOURS, bins=25,
            binrange=(0, 1), element="step", alpha=0.4, ax=axis, legend=axis is axes.flat[-1],
        )  # fmt: skip
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axis.set(title=f"{name} (dashed: threshold)", ylabel="images")
