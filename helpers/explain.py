"""Where a model looked: heatmaps by tf-keras-vis, and how well they find an opacity whose true mask is known."""

from __future__ import annotations

import base64
import io

import keras
import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam

from helpers import evaluation, model

# Selvaraju et al. 2017 (ICCV), Chattopadhay et al. 2018 (WACV), Jiang et al. 2021 (IEEE TIP)
METHODS = {"Grad-CAM": Gradcam, "Grad-CAM++": GradcamPlusPlus, "LayerCAM": Layercam}
# In a report: of each outcome the middle image, in the order of their probabilities, or the one with the surest error
CASES = {"TP": 0.5, "TN": 0.5, "FP": 1.0, "FN": 0.0}


def heatmaps(classifier: keras.Model, pixels: np.ndarray, method: str = "Grad-CAM", batch: int = 8) -> np.ndarray:
    """Class activation maps: what speaks for pneumonia in each image.

    The score is the logit, not the saturating probability, and the layer is the backbone's last.

    Parameters
    ----------
    classifier : keras.Model
        As notebooks 03 and 04 build it, with the layers "preprocessing", "pooling" and "logit".
    pixels : array of uint8 or float, shape (n, size, size)
        Grey levels, 0-255; at least one image.
    method : str
        A key of METHODS: "Grad-CAM", "Grad-CAM++" or "LayerCAM".
    batch : int
        Images that are computed at once.

    Returns
    -------
    array of float32, shape (n, size, size)
        0 to 1. Each map is divided by its maximum, then enlarged, by which the peak may fall a little below 1. Where
        nothing speaks for pneumonia it is all zero.

    Raises
    ------
    KeyError
        Where `method` is no key of METHODS.
    ValueError
        Where there is no image, or the classifier lacks one of these layers.

    References
    ----------
    Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV.
    Chattopadhay et al. (2018), Grad-CAM++: generalized gradient-based visual explanations for deep convolutional
    networks, WACV. Jiang et al. (2021), LayerCAM: exploring hierarchical class activation maps for localization, IEEE
    Transactions on Image Processing 30.
    """
    maps = last_maps(classifier)
    below, above, found = keras.Model(classifier.inputs[0], maps), head(classifier), []
    for start in range(0, len(pixels), batch):
        seen = below(pixels[start : start + batch, ..., None].astype(np.float32), training=False)
        found.append(heatmaps_of(above, seen, pixels.shape[1], method))
    return np.concatenate(found)


def last_maps(classifier: keras.Model) -> keras.KerasTensor:
    """What the backbone's last layer makes of the images."""
    return model.backbone_layers(classifier)[-1].output


def head(classifier: keras.Model) -> keras.Model:
    """`classifier` after its `last_maps`, without the last sigmoid: maps to logits. All that the gradients pass."""
    return keras.Model(last_maps(classifier), classifier.get_layer("logit").output)


def heatmaps_of(above: keras.Model, maps: np.ndarray, size: int, method: str = "Grad-CAM") -> np.ndarray:
    """What `heatmaps` gives, from the `head` of a classifier and its `last_maps` of the images, (n, h, w, channels)."""
    raw = METHODS[method](above, clone=False)(
        lambda output: output[:, 0] - keras.ops.stop_gradient(output[:, 0]),  # Grad-CAM++ takes its exponential
        maps,
        penultimate_layer=0,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    return np.stack([enlarge(np.asarray(one, np.float32), size) for one in np.asarray(raw)])


def enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    """Divide a map by its maximum, and stretch it to a square.

    Parameters
    ----------
    heat : array of float32, shape (h, w)
        Finite. Values below 0 become 0.
    size : int
        Side of the square, pixels.

    Returns
    -------
    array of float32, shape (size, size)
        0 to 1, bilinear; all zero where no value is positive.
    """
    peak = float(heat.max())
    if peak <= 0:
        return np.zeros((size, size), np.float32)
    return np.clip(np.asarray(Image.fromarray(heat / peak).resize((size, size), Image.Resampling.BILINEAR)), 0, 1)


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Lay a heatmap over an image, in the colours of matplotlib's "inferno".

    Colour covers as much as the map is hot, so that cold regions stay as they were.

    Parameters
    ----------
    image : array of uint8, shape (height, width)
        Grey levels, of any size.
    heat : array of float, shape (h, w)
        0 to 1, what lies beyond is clipped; stretched to the image.
    opacity : float in [0, 1]
        Of the colour where the map is 1.

    Returns
    -------
    array of uint8, shape (height, width, 3)
        Red, green and blue.
    """
    large = Image.fromarray(heat.astype(np.float32)).resize(image.shape[::-1], Image.Resampling.BILINEAR)
    hot = np.clip(np.asarray(large, np.float64), 0, 1)
    share, colour = opacity * hot[..., None], matplotlib.colormaps["inferno"](hot)[..., :3]
    return np.rint(image[..., None] * (1 - share) + 255 * colour * share).astype(np.uint8)


def localisation(heat: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """How well heatmaps fit the true opacities.

    Parameters
    ----------
    heat : array of float, shape (n, size, size)
        Heatmaps, 0 to 1.
    masks : array of bool, shape (n, size, size)
        True within the opacity.

    Returns
    -------
    DataFrame, one row an image
        inside: proportion of the activation that lies in the mask. hit: whether the highest pixel does (the pointing
        game). Both are 0 and False for a map that is all zero. area: proportion of the image that the mask covers,
        which is what both would be by chance.

    Raises
    ------
    ValueError
        Where there are not as many masks as heatmaps.
    IndexError
        Where a mask is of another size than its heatmap.

    References
    ----------
    Zhang et al. (2018), Top-down neural attention by excitation backprop, IJCV 126.
    """
    pairs = list(zip(heat, masks, strict=True))
    found = {
        "inside": [float(one[mask].sum()) / (float(one.sum()) or 1.0) for one, mask in pairs],
        "hit": [bool(one.any() and mask.flat[one.argmax()]) for one, mask in pairs],
        "area": [float(mask.mean()) for _, mask in pairs],
    }
    return pd.DataFrame(found)


def border_share(heat: np.ndarray, width: float = 0.1) -> np.ndarray:
    """Proportion of each heatmap's activation that lies at the border of the image.

    Much more than in an even map hints at markers, edges or collimation as shortcuts; little clears nobody, since
    compression or sharpness would be used everywhere in the image.

    Parameters
    ----------
    heat : array of float, shape (n, size, size)
        Heatmaps, 0 and up.
    width : float in [0, 0.5]
        Of the border at each side, as a proportion of the size; rounded to whole pixels.

    Returns
    -------
    array of float64 in [0, 1], shape (n,)
        NaN where a map is all zero. An even map has about 1 - (1 - 2 * width) ** 2. For a `width` of 0.1 that is 0.36;
        after rounding it is 0.373 at 96 pixels and 0.354 at 224.
    """
    size = heat.shape[1]
    cut = round(size * width)
    total = heat.sum(axis=(1, 2))
    inner = heat[:, cut : size - cut, cut : size - cut].sum(axis=(1, 2))
    return np.divide(total - inner, total, out=np.full(len(heat), np.nan), where=total > 0)


def choose_cases(predictions: pd.DataFrame, threshold: float, uncertain: list[float] | None) -> pd.DataFrame:
    """Six rows of `predictions` for a report, with the columns outcome and uncertain (whether within that range).

    First those of CASES, outside the uncertain range where there are any; then of each class the nearest to the
    threshold; then what else is near it.
    """
    truth, probability = predictions["label"] == evaluation.POSITIVE, predictions["probability"]
    ranked = predictions.assign(outcome=evaluation.outcomes(truth, probability, threshold), uncertain=False)
    if uncertain:
        ranked["uncertain"] = probability.between(*uncertain)
    ranked, found = ranked.sort_values(["probability", "path"]), []
    for outcome, place in CASES.items():
        alike = ranked[ranked["outcome"] == outcome]
        alike = alike if alike["uncertain"].all() else alike[~alike["uncertain"]]
        found += [alike.iloc[[round(place * (len(alike) - 1))]]] if len(alike) else []
    near = ranked.iloc[(ranked["probability"] - threshold).abs().argsort(kind="stable")].drop(pd.concat(found).index)
    return pd.concat([*found, near.drop_duplicates("label"), near]).drop_duplicates("path").head(6)


def strongest(heat: np.ndarray) -> str:
    """Where in the image a heatmap, float (size, size), has its maximum, in words; "" where it is empty."""
    row, column = (int(3 * place / len(heat)) for place in np.unravel_index(int(heat.argmax()), heat.shape))
    place = f"{('upper', 'middle', 'lower')[row]} {('left', 'centre', 'right')[column]}"
    return place.replace("middle centre", "centre") if heat.any() else ""


def _embedded(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cases(classifier: keras.Model, pixels: np.ndarray, predictions: pd.DataFrame, card: dict) -> list[dict]:
    """Six images with their heatmaps, fewer where there are fewer, for the index of a run.

    Parameters
    ----------
    classifier : keras.Model
        From notebook 04.
    pixels : ndarray of uint8, (n, size, size)
        The images of the run.
    predictions : DataFrame, one row an image
        Columns path, label, subtype, probability and row (its index in `pixels`).
    card : dict
        model.json, with its threshold and uncertain range.

    Returns
    -------
    list of dict
        Those of `choose_cases`, with where the heatmap is strongest, and image and heatmap as text for a page.

    Raises
    ------
    InputError
        Where there are no predictions, or a probability cannot be used (NaN, outside [0, 1]).
    """
    chosen = choose_cases(predictions, card["threshold"], card.get("uncertain"))
    films = pixels[chosen["row"]]
    heat = heatmaps(classifier, films)
    made = chosen.assign(strongest=list(map(strongest, heat)), image=list(map(_embedded, films)))
    made["heatmap"] = [_embedded(overlay(*pair)) for pair in zip(films, heat, strict=True)]
    kept = ["path", "label", "subtype", "probability", "outcome", "uncertain", "strongest", "image", "heatmap"]
    return made[kept].to_dict("records")
