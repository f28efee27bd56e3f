"""One answer of the prediction page in words and pictures: HTML and rows of text, from what was predicted, the model's
card and a threshold. At the card's own threshold its band of doubt holds; at another it says nothing.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from helpers import explain, predict

SHOWN_HEIGHT = 340  # pixels
COLUMNS = ("file", "probability", "decision", "threshold", "warnings", "error", "seconds")
STYLE = """<style>
.xray { font-size: 15px; line-height: 1.45; overflow-wrap: anywhere; }
.xray-scale { position: relative; height: 16px; max-width: 560px; margin: 10px 0 26px; border-radius: 8px;
  background: #e6e6e6; }
.xray-bar { height: 16px; border-radius: 8px; }
.xray-band { position: absolute; top: 0; height: 16px; background: #0003; }
.xray-mark { position: absolute; top: -4px; width: 2px; height: 24px; background: #000; }
.xray-mark span { position: absolute; top: 24px; left: -30px; width: 62px; text-align: center; font-size: 12px; }
.xray-pictures { display: flex; flex-wrap: wrap; gap: 10px; }
.xray-pictures figure { margin: 0; max-width: 100%; }
.xray-stack { position: relative; display: inline-block; max-width: 100%; }
.xray-stack img { display: block; max-width: 100%; }
.xray-stack img + img { position: absolute; inset: 0; width: 100%; height: 100%; }
.xray-heat { opacity: 0.6; }
.xray a { color: #1a5fb4; text-decoration: underline; }
.xray-table { overflow-x: auto; overflow-wrap: normal; }
.xray-table td, .xray-table th { padding: 3px 10px; text-align: left; vertical-align: top; }
.xray-table td { overflow-wrap: break-word; min-width: 5em; max-width: 24em; }
@media (max-width: 600px) {
  .xray-table table, .xray-table tbody { display: block; }
  .xray-table tr { display: grid; grid-template-columns: 1fr 7.5em 7.5em; }
  .xray-table tr > * { min-width: 0; padding: 3px 6px; overflow-wrap: break-word; }
  .xray-table td:nth-child(4) { grid-column: 1 / -1; max-width: none; }
  .xray-table td:empty, .xray-table th:nth-child(4) { display: none; }
}
.xray table { border-collapse: collapse; } .xray tr + tr { border-top: 1px solid #ddd; }
</style>"""


@dataclass(eq=False)
class Answer:
    """What the page keeps of one image: small pictures, never the file."""

    file: str
    error: str = ""
    prediction: predict.Prediction | None = None
    picture: np.ndarray | None = None  # uint8 (h, w), about as large as it is shown
    seconds: float = 0.0
    heat: dict[str, np.ndarray] = field(default_factory=dict)  # method -> float32 (size, size)


def worth(card: dict) -> str:
    """In words: what was measured at the model's threshold, on how many images, and for what the model was made."""
    made_on = (card.get("metrics") or {}).get("validation")
    share = f" Its probabilities assume that {made_on['prevalence']:.0%} of images show pneumonia." if made_on else ""
    return f"{known(card, card['threshold'])}{share} Made for {predict.made_for(card)}. Not a medical device."


def known(card: dict, threshold: float) -> str:
    """In words: sensitivity and specificity as measured on test images at `threshold`, and what that is worth."""
    tested, points = (card.get("metrics") or {}).get("test") or {}, card.get("operating_points")
    own = threshold == card["threshold"]
    if not tested or not (own or points):
        return "Nothing has been measured at this " + ("model's threshold." if own else "threshold.")
    if own:
        found, spared = tested["sensitivity"]["value"], tested["specificity"]["value"]
        start = f"At its threshold of {threshold:.3f} this model"
    else:
        nearest = int(np.argmin(np.abs(np.array(points["threshold"]) - threshold)))
        found, spared = points["sensitivity"][nearest], points["specificity"][nearest]
        start = f"At a threshold of {points['threshold'][nearest]:.2f} it"
    found, spared = (f"{100 * v:.0f} of 100" if v is not None else "an unknown share of" for v in (found, spared))
    words = f"found {found} pneumonias (sensitivity) and raised no alarm for {spared} healthy images (specificity)"
    text = f"{start} {words}, on {tested['n']} test images."
    sure = card.get("certain") or {"n": 0}
    if own and sure["n"]:
        text += f" Of the {sure['n']} outside its band of doubt, {sure['right']} answers were right."
    if not own:
        text += " A threshold picked by these numbers is fitted to the test images, and no longer tested."
    return text


def decision(prediction: predict.Prediction, card: dict, threshold: float) -> str:
    """One of the keys of _VERDICTS."""
    if prediction.stranger:
        return "not for this model"
    if threshold == card["threshold"]:
        return "uncertain" if prediction.uncertain else prediction.label
    return "PNEUMONIA" if prediction.probability >= threshold else "NORMAL"


_VERDICTS = {  # decision -> colour, words
    "PNEUMONIA": ("#b34a10", "Signs of pneumonia"),
    "NORMAL": ("#2f6496", "Below the threshold, not called pneumonia"),
    "uncertain": ("#6b5b00", "Uncertain: needs a reader"),
    "not for this model": ("#5f5f5f", "Not like the images this model was made for"),
}


def describe(answer: Answer, card: dict, threshold: float) -> str:
    """One answer as HTML; file names are shown as text, never as markup."""
    title = f"<h4>{html.escape(answer.file)}</h4>"
    if answer.error:
        return (
            f"<div class='xray'>{title}<p role='alert'><b>This file cannot be used:</b> "
            f"{html.escape(answer.error)}</p></div>"
        )
    p, band = answer.prediction.probability, card.get("uncertain")
    colour, verdict = _VERDICTS[decision(answer.prediction, card, threshold)]
    if predict.UPSIDE_DOWN in answer.prediction.warnings:
        verdict = "Upside down, as it seems"
    shade = doubt = ""
    if band and threshold == card["threshold"]:
        shade = (
            f'<div class="xray-band" style="left:{100 * band[0]:.1f}%;width:{100 * (band[1] - band[0]):.1f}%"></div>'
        )
        doubt = f"From {band[0]:.3f} to {band[1]:.3f} (shaded) the model is uncertain."
    elif band:
        doubt = "The band of doubt belongs to the model's own threshold and is not used here."
    warnings = "".join(f"<li>{html.escape(w)}</li>" for w in answer.prediction.warnings if w != predict.UNCERTAIN)
    return (
        f"<div class='xray'>{title}<p style='color:{colour};font-size:1.15em'><b>{verdict}</b>: "
        f"probability {p:.3f}, threshold {threshold:.3f}</p>"
        f'<div class="xray-scale" role="img" aria-label="probability {p:.3f} on a scale from 0 to 1, threshold '
        f'{threshold:.3f}"><div class="xray-bar" style="width:{100 * p:.1f}%;background:{colour}"></div>{shade}'
        f'<div class="xray-mark" style="left:{100 * threshold:.1f}%"><span>{threshold:.3f}</span></div></div>'
        f"<ul>{warnings}</ul><p>{html.escape(f'{doubt} {known(card, threshold)}'.strip())} "
        f"This image took {answer.seconds:.1f} s.</p></div>"
    )


def draw(answer: Answer, method: str = "") -> str:
    """The image, and the image under the heatmap of `method` (none: the image alone), as HTML."""
    if answer.error:
        return ""
    plain = _uri(answer.picture)
    image = (
        f'<figure><div class="xray-stack"><img src="{plain}" alt="the image"></div>'
        "<figcaption>the image</figcaption></figure>"
    )
    if not method:
        return f"<div class='xray xray-pictures'>{image}</div>"
    heat = _uri(np.rint(255 * explain.in_colour(answer.heat[method], answer.picture.shape)).astype(np.uint8))
    return (
        f"<div class='xray xray-pictures'>{image}"
        f'<figure><div class="xray-stack"><img src="{plain}" alt="the image, under the heatmap">'
        f'<img class="xray-heat" src="{heat}" alt="where the model saw signs of pneumonia">'
        f"</div><figcaption>{html.escape(method)}: what spoke for pneumonia</figcaption></figure></div>"
    )


def rows(answers: list[Answer], card: dict, threshold: float) -> list[dict[str, str]]:
    """A row of text per answer, with COLUMNS, decided at `threshold`."""
    table = []
    for answer in answers:
        row = dict.fromkeys(COLUMNS, "") | {"file": answer.file, "error": answer.error}
        if answer.prediction:
            decided = decision(answer.prediction, card, threshold)
            warnings = [w for w in answer.prediction.warnings if w != predict.UNCERTAIN or decided == "uncertain"]
            row |= {
                "probability": f"{answer.prediction.probability:.9g}",
                "decision": decided,
                "threshold": f"{threshold:.9g}",
                "warnings": "; ".join(warnings),
                "seconds": f"{answer.seconds:.2f}",
            }
        table.append(row)
    return table


def sitting(table: list[dict[str, str]]) -> str:
    """The rows as HTML, the last first, with a link to them as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.getvalue().encode()).decode()
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("file", "probability", "decision", "remarks"))
    body = ""
    for row in table[::-1]:
        probability = f"{float(row['probability']):.3f}" if row["probability"] else ""
        cells = (row["file"], probability, row["decision"], row["error"] or row["warnings"])
        body += f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
    return (
        f"<div class='xray xray-table'><h4>This sitting</h4><table><tr>{head}</tr>{body}</table>"
        f'<p><a download="predictions.csv" href="{link}">Download as CSV</a></p></div>'
    )


def reduced(pixels: np.ndarray) -> np.ndarray:
    """uint8 (h, w), at most about twice as large as it is shown."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((1000, 2 * SHOWN_HEIGHT))
    scale = SHOWN_HEIGHT / picture.height
    if scale > 1:
        picture = picture.resize((max(1, min(1000, round(picture.width * scale))), SHOWN_HEIGHT))
    return np.asarray(picture)


def png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w) or (h, w, channels) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
