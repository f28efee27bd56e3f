"""The session of one person on the page: a row of text per image, as a table and as a CSV file."""

from __future__ import annotations

import base64
import csv
import io

from helpers import predict, storage
from helpers.page.answer import TEMPLATES, Answer, decision

COLUMNS = (
    "file", "probability", "decision", "threshold", "warnings", "error", "seconds", "age", "own label", "true label",
)  # fmt: skip
SEPARATORS = {"comma, 0.5": (",", "."), "semicolon, 0,5": (";", ","), "tab, 0.5": ("\t", ".")}
_NUMBERS = ("probability", "threshold", "seconds", "age")


def rows(answers: list[Answer], card: dict, threshold: float) -> list[dict[str, str]]:
    """A row of text per answer, with COLUMNS, decided at `threshold`."""
    table, own = [], threshold == card["threshold"]  # the uncertain range belongs to the model's own threshold
    for answer in answers:
        row = dict.fromkeys(COLUMNS, "") | {"file": answer.file, "error": answer.error}
        if answer.prediction and not answer.hidden:
            decided = decision(answer.prediction, card, threshold)
            uncertain = [predict.UNCERTAIN] if own and predict.UNCERTAIN in answer.prediction.warnings else []
            row |= {
                "probability": f"{answer.prediction.probability:.9g}",
                "decision": decided,
                "threshold": f"{threshold:.9g}",
                "warnings": "; ".join([*answer.warnings(card), *uncertain]),
                "seconds": f"{answer.seconds:.2f}",
                "age": "" if answer.age is None else f"{answer.age:g}",
                "own label": answer.reading,
                "true label": answer.truth,
            }
        table.append(row)
    return table


def as_csv(table: list[dict[str, str]], separator: str) -> bytes:
    """The rows as a spreadsheet opens them: with a byte order mark, and no cell that is a formula."""
    delimiter, point = SEPARATORS[separator]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    for row in table:
        numbers = {name: row[name].replace(".", point) for name in _NUMBERS}
        writer.writerow({name: storage.no_formula(value) for name, value in row.items()} | numbers)
    return text.getvalue().encode("utf-8-sig", "backslashreplace")


def as_html(table: list[dict[str, str]], separator: str) -> str:
    """The rows as HTML, the last first, with a link to them as a CSV file."""
    link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(as_csv(table, separator)).decode()
    return TEMPLATES.get_template("session.html.j2").render(rows=table[::-1], link=link)
