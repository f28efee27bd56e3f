"""One answer of the prediction page in words: HTML from what was predicted, the model's card and a threshold.

At the card's own threshold its uncertain range holds; at another it says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from helpers import evaluation, predict

VERDICTS = {  # decision -> colour, icon, words
    "PNEUMONIA": ("#a63c06", "▲", "Signs of pneumonia"),
    "NORMAL": ("#1f5c8b", "●", "Below the threshold, not called pneumonia"),
    "uncertain": ("#6b5b00", "?", "Uncertain: needs a reader"),
    "not for this model": ("#555555", "✕", "Not like the images this model was made for"),
}
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
ENOUGH = 20  # test images to tell a frequency of


@dataclass(eq=False)
class Answer:
    """What the page keeps of one image: small pictures, never the file."""

    file: str
    error: str = ""
    prediction: predict.Prediction | None = None
    picture: bytes = b""  # a PNG about as large as a screen can show
    seconds: float = 0.0
    heat: dict[str, np.ndarray] = field(default_factory=dict)  # method -> float32 (size, size)
    age: float | None = None  # years, as the person typed it
    reading: str = ""  # the person's own label
    truth: str = ""  # of a sample
    hidden: bool = False  # a sample that the person has not read yet

    def warnings(self, card: dict) -> list[str]:
        """Why not to trust the number, without the uncertain range, which is part of the answer."""
        found = self.prediction.warnings if self.prediction else ()
        told = dict.fromkeys([predict.age_warning(card, self.age), *found])  # each once
        return [warning for warning in told if warning and warning != predict.UNCERTAIN]


def describe_model(card: dict) -> str:
    """In words: what was measured at the model's threshold, on how many images, and for what the model was made."""
    validation = (card.get("metrics") or {}).get("validation")
    share = (
        f" Its probabilities fit a place where {validation['prevalence']:.0%} of the images show pneumonia. "
        "Where fewer do, they are too high."
        if validation
        else ""
    )
    point = describe_operating_point(card, card["threshold"])
    return f"{point}{share} Made for {predict.made_for(card)}. Not a medical device."


def operating_point(card: dict, threshold: float) -> tuple[float, dict, dict] | None:
    """(threshold, sensitivity, specificity) on test images at the measured threshold next to this one, if any.

    The rates have "value", "low" and "high"; low and high are None at other thresholds than the model's own.
    """
    tested, points = (card.get("metrics") or {}).get("test"), card.get("operating_points")
    interval = {"low": None, "high": None}
    if tested and threshold == card["threshold"]:
        return threshold, interval | tested["sensitivity"], interval | tested["specificity"]
    if not (tested and points):
        return None
    nearest = int(np.argmin(np.abs(np.array(points["threshold"]) - threshold)))
    rates = (interval | {"value": points[name][nearest]} for name in ("sensitivity", "specificity"))
    return points["threshold"][nearest], *rates


def describe_operating_point(card: dict, threshold: float) -> str:
    """In words: sensitivity and specificity as measured on test images at `threshold`, and what that is worth."""
    own, point = threshold == card["threshold"], operating_point(card, threshold)
    if not point:
        return "Nothing has been measured at this " + ("model's threshold." if own else "threshold.")
    at, sensitivity, specificity = point
    turned = {"value": "value", "low": "high", "high": "low"}  # of normal images, what is no true negative is an alarm
    alarms = {name: None if specificity[of] is None else 1 - specificity[of] for name, of in turned.items()}
    start = f"At its threshold of {at:.3f} this model" if own else f"At a threshold of {at:.2f} it"
    tested = card["metrics"]["test"]["n"]
    text = (
        f"{start} found {_of_100(sensitivity)} images with pneumonia. It gave {_of_100(alarms)} normal images a false "
    )
    text += f"alarm. This was measured on {tested} test images."
    sure = card.get("certain") or {"n": 0}
    if own and sure["n"]:
        text += " These rates use the threshold alone. "
        text += f"{tested - sure['n']} of the images lie in the uncertain range. "
        text += f"Of the answers to the other {sure['n']}, {sure['right']} were right."
    if not own:
        text += " A threshold picked by these numbers is fitted to the test images, and no longer tested."
    return text


def _of_100(rate: dict) -> str:
    if rate["value"] is None:
        return "an unknown number of"
    interval = f" ({100 * rate['low']:.0f} to {100 * rate['high']:.0f})" if rate["low"] is not None else ""
    return f"{100 * rate['value']:.0f} of 100{interval}"


def describe_frequency(card: dict, probability: float) -> str:
    """In words: how many of the test images with about this probability had pneumonia. "": the card does not say.

    "About" is the same tenth, or as many tenths around it as it takes for ENOUGH images.
    """
    tested, points = (card.get("metrics") or {}).get("test") or {}, card.get("operating_points") or {"threshold": []}
    grid = [round(at, 6) for at in points["threshold"]]
    if "prevalence" not in tested or any(tenth / 10 not in grid for tenth in range(10)):
        return ""
    if None in points["sensitivity"] + points["specificity"]:  # one class only
        return ""
    positives, every = round(tested["n"] * tested["prevalence"]), tested["n"]

    def count_from(tenth: int) -> np.ndarray:
        """(with pneumonia, all) of the test images from this many tenths on."""
        if tenth > 9:  # the last tenth has 1 in it
            return np.zeros(2)
        at = grid.index(tenth / 10)
        sick = positives * points["sensitivity"][at]
        return np.array([sick, sick + (every - positives) * (1 - points["specificity"][at])])

    low = min(int(10 * probability + 1e-9), 9)
    high = low + 1
    while (count_from(low) - count_from(high))[1] < min(ENOUGH, every) - 0.5:
        low, high = max(0, low - 1), min(10, high + 1)
    sick, alike = (round(float(part)) for part in count_from(low) - count_from(high))
    between = f"that got from {low / 10:.1f} to {high / 10:.1f}"
    if alike < 100:  # too few to speak of 100
        return f"Of the {alike} test images {between}, {sick} had pneumonia."
    return (
        f"Of 100 such answers on test images, {100 * sick / alike:.0f} had pneumonia: {sick} of the {alike} {between}."
    )


def describe_prevalence(card: dict, threshold: float, prevalence: float) -> str:
    """In words: precision and NPV at `threshold` where `prevalence` (0-1) of the patients have pneumonia."""
    point = operating_point(card, threshold)
    if not point:
        return "Nothing has been measured at this threshold, so that this cannot be computed."
    right, spared = map(_of_100, evaluation.predictive_values(*point[1:], prevalence))
    return (
        f"Where {100 * prevalence:.3g} of 100 patients have pneumonia, {right} alarms are right (precision), "
        f"and {spared} answers below the threshold (NPV). The decision stays the same."
    )


def decision(prediction: predict.Prediction, card: dict, threshold: float) -> str:
    """What the page answers for one image.

    Parameters
    ----------
    prediction : predict.Prediction
        Of the model with this card.
    card : dict
        Its model.json; "threshold" is read.
    threshold : float in [0, 1]
        Where it is the card's own, the uncertain range holds; at another, "uncertain" is not answered.

    Returns
    -------
    str
        A key of VERDICTS: "PNEUMONIA" (from the threshold on), "NORMAL", "uncertain", or, before all else, "not for
        this model", where the image is out of distribution.
    """
    if prediction.out_of_distribution:
        return "not for this model"
    if threshold == card["threshold"]:
        return "uncertain" if prediction.uncertain else prediction.label
    return "PNEUMONIA" if prediction.probability >= threshold else "NORMAL"


def verdict(prediction: predict.Prediction, card: dict, threshold: float) -> tuple[str, str, str]:
    """Colour, icon and words."""
    colour, icon, words = VERDICTS[decision(prediction, card, threshold)]
    return colour, icon, "Upside down, as it seems" if predict.UPSIDE_DOWN in prediction.warnings else words


def describe(answer: Answer, card: dict, threshold: float) -> str:
    """One answer as HTML; file names are shown as text, never as markup."""
    about = {"answer": answer, "threshold": threshold, "own": threshold == card["threshold"]}
    about |= {"band": card.get("uncertain"), "warnings": answer.warnings(card)}
    if answer.prediction:
        about |= zip(("colour", "icon", "words"), verdict(answer.prediction, card, threshold), strict=True)
    return TEMPLATES.get_template("answer.html.j2").render(about)


def report(answer: Answer, card: dict, threshold: float, model: str) -> dict:
    """What the browser writes into the report of one image; {} where there is nothing to report."""
    if not answer.prediction or answer.hidden:
        return {}
    _, _, words = verdict(answer.prediction, card, threshold)
    band = card.get("uncertain") if threshold == card["threshold"] else None
    lines = [f"Warning: {warning}" for warning in answer.warnings(card)]
    lines += [f"Uncertain range: {band[0]:.3f} to {band[1]:.3f}"] if band else []
    lines += [f"Age given: {answer.age:g} years"] if answer.age is not None else []
    lines += [f"Reader's own label: {answer.reading}"] if answer.reading else []
    lines += [f"True label: {answer.truth}"] if answer.truth else []
    lines += [
        f"Model: {' '.join([model, card.get('sha256', '')[:16]]).strip()}",
        describe_operating_point(card, threshold),
    ]
    p = answer.prediction.probability
    return {
        "file": answer.file,
        "answer": f"{words}: probability {p:.3f}, threshold {threshold:.3f}",
        "lines": [*lines, f"Made for {predict.made_for(card)}."],
    }
