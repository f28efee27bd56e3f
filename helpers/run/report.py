"""Pages of a run: an executed notebook as one HTML file, and the index that ties them together.

A page is complete in itself: style and figures are inside, nothing is fetched, and a content security policy keeps
any script from running, whatever a file name or an output says.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML, markdown2html
from pygments.formatters import HtmlFormatter

from helpers import config, evaluation, storage
from helpers.run import provenance
from helpers.run.markup import headings, outputs, plain

TEMPLATES = Path(__file__).resolve().parent / "templates"
BANNER = "Phantom run: images drawn by code. The numbers measure the machinery, not medicine."
TRAINED = {"03": ("pretraining", "head"), "04": ("fine_tuning",)}  # which notebook has which training
HEADLINE = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
}


def human_time(seconds: float | None) -> str:
    """41.2 -> "41 s", 200 -> "3 min 20 s", 4000 -> "1 h 06 min"; "" for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min {whole % 60:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def human_bytes(count: float | None) -> str:
    """1_234_000_000 -> "1.2 GB", below a gigabyte in MB; "" for None."""
    if count is None:
        return ""
    return f"{count / 1e9:.1f} GB" if count >= 995e6 else f"{count / 1e6:.0f} MB"


def human_name(key: str) -> str:
    """A key of metrics.json or explanations.json in words."""
    words = evaluation.in_words(key)
    return key if key == "n" else words[:1].upper() + words[1:]


def human_value(value) -> str:
    """A number, an interval {"value", "low", "high"}, a truth value or a text, for a table cell."""
    if isinstance(value, dict) and "value" in value:
        low, high = value.get("low"), value.get("high")
        interval = "" if low is None or high is None or low == high else f" ({human_value(low)} to {human_value(high)})"
        return human_value(value["value"]) + interval
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return ", ".join(human_value(v) for v in value) if isinstance(value, list) else str(value)


def flatten(values: dict, above: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (name, value) rows; intervals stay whole."""
    rows = []
    for key, value in values.items():
        name = f"{above}{human_name(str(key))}"
        if isinstance(value, dict) and "value" not in value:
            rows += flatten(value, name + " · ")
        else:
            rows.append((name, human_value(value)))
    return rows


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"time": human_time, "bytes": human_bytes, "value": human_value, "words": human_name}
    highlighting = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    environment.globals |= {"style": Markup(style + highlighting), "banner_text": BANNER}  # noqa: S704 - our own CSS
    return environment


def opening(notebook) -> tuple[str, str]:
    """Title (its h1) and purpose (its first paragraph) of a notebook, as plain text; "" where there is none."""
    prose = "\n\n".join(markdown2html(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"<h1\b[^>]*>(.*?)</h1>", prose, re.DOTALL)
    purpose = re.search(r"<p>(.*?)</p>", prose, re.DOTALL)
    name = re.sub(r'<a class="anchor-link".*?</a>', "", title.group(1)) if title else ""
    return plain(name), " ".join(plain(purpose.group(1)).split()) if purpose else ""


def render(
    notebook: Path,
    page: Path,
    pages: list[tuple[str, str]] = (),
    record: dict | None = None,
    failure: dict | None = None,
    hide: dict[str, str] | None = None,
) -> None:
    """Write the executed `notebook` as the HTML file `page`.

    `pages` are (stem, title) of all notebooks of the run, for the links; `record` is its run.json; `failure` is
    {"cell", "message", "advice"} of the cell that stopped it; `hide` replaces texts (this machine's
    paths) in code and text outputs.
    """
    content = nbformat.read(notebook, as_version=4)

    def hidden(text: str) -> str:
        for found, shown in sorted((hide or {}).items(), key=lambda pair: -len(pair[0])):
            text = text.replace(found, shown)
        return text

    contents: list[dict] = []
    cells, number = [], 0
    highlight = Highlight2HTML(pygments_lexer="ipython3")
    for cell in content.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and "papermill-error-cell-tag" not in tags:
            markup = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', markdown2html(cell.source))
            cells.append({"kind": "markdown", "html": Markup(headings(markup, contents))})  # noqa: S704 - our notebook
        if cell.cell_type != "code" or not (cell.source.strip() or cell.outputs):
            continue
        number += "injected-parameters" not in tags
        is_parameters = "parameters" in tags or "injected-parameters" in tags
        failed = bool(failure) and failure.get("cell") == number and "injected-parameters" not in tags
        label = "parameters" if is_parameters else "code"
        cells.append(
            {
                "kind": "code",
                "label": f"{label} given to this run" if "injected-parameters" in tags else label,
                "number": number,
                "failed": failed,
                "code": Markup(highlight(hidden(cell.source))),  # noqa: S704 - pygments escapes
                "outputs": outputs(cell, hidden),
            }
        )
    stems = [stem for stem, _ in pages]
    here = stems.index(page.stem) if page.stem in stems else None
    page_text = _environment().get_template("page.html.j2")
    text = page_text.render(
        title=opening(content)[0] or page.stem,
        stem=page.stem,
        cells=cells,
        contents=[entry for entry in contents if entry["level"] in (2, 3)],
        pages=pages,
        previous=pages[here - 1] if here else None,
        following=pages[here + 1] if here is not None and here + 1 < len(pages) else None,
        record=record or {},
        run=(record or {}).get("run", ""),
        banner=of_phantoms(record or {}, page.parent),
        failure=failure,
    )
    storage.write_text(page, text)


def of_phantoms(record: dict, folder: Path) -> bool:
    """Whether the run is about phantoms: it drew them, or its model was trained on them."""
    return record.get("parameters", {}).get("phantoms", 0) > 0 or bool(
        storage.read_json(folder / "model/model.json").get("phantoms")
    )


def _metrics(metrics: dict) -> dict | None:
    """Rows of the index's table of numbers: the headline ones, then the rest; None without a test or validation."""
    parts = {name: metrics[name] for name in ("test", "validation") if isinstance(metrics.get(name), dict)}
    if not parts:
        return None
    leading = next(iter(parts.values()))
    rest = [key for key, value in leading.items() if isinstance(value, dict) and "value" in value]
    keys = [key for key in HEADLINE if key in rest] + [key for key in rest if key not in HEADLINE]
    subtypes = flatten({kind: part["by_subtype"] for kind, part in parts.items() if part.get("by_subtype")})
    lows = [part[key].get("low") for part in parts.values() for key in keys if isinstance(part.get(key), dict)]
    origin = 0.5 if all(low >= 0.5 for low in lows[: len(HEADLINE)] if low is not None) else 0.0
    return {
        "parts": parts,
        "rows": keys,
        "origin": origin,
        "headline": len(set(keys) & set(HEADLINE)),
        "subtypes": subtypes,
    }


def _epochs(folder: Path, pretrained: bool) -> dict[str, list[dict]]:
    """A run's histories of training by stage, without epoch 0; that of pre-training where it is part of the run."""
    found = {}
    for stage in (stage for stages in TRAINED.values() for stage in stages):
        history = storage.read_json(folder / "training" / stage / "state.json").get("history", [])[1:]
        found[stage] = history if pretrained or stage != "pretraining" else []
    return found


def _cost(folder: Path, epochs: dict[str, list[dict]]) -> list[dict]:
    """What training took, by stage: epochs, seconds of the middle one, and images a second."""
    splits = folder / "splits.csv"
    trained = splits.read_text(encoding="utf-8").count(",train,") if splits.exists() else 0
    rows = []
    for stage, history in epochs.items():
        if history:
            seconds = statistics.median(epoch["seconds"] for epoch in history)
            known = trained if stage != "pretraining" else 0
            speed = f"{known / seconds:.{0 if known > 20 * seconds else 1}f}" if known and seconds else ""
            rows.append({"stage": human_name(stage), "epochs": len(history), "seconds": seconds, "speed": speed})
    return rows


def _saved_model(folder: Path, parameters: dict) -> dict[str, str]:
    """What the index says of a saved model that a run evaluates."""
    card = storage.read_json(folder / "model" / "model.json")
    said = {"folder": parameters["model"], "backbone": card.get("backbone"), "SHA-256": card.get("sha256")}
    if isinstance(card.get("threshold"), float):
        said["threshold"] = f"{card['threshold']:.4f}, by the policy {card.get('threshold_policy')}"
    return {name: value for name, value in said.items() if value}


def write_index(folder: Path) -> Path:
    """Write index.html of the run in `folder` from its run.json, metrics.json and explanations.json; its path.

    Equal contents are left alone, so that a finished run is not touched.
    """
    record = storage.read_json(folder / "run.json")
    parameters = record.get("parameters", {})
    changed = {key: parameters[key] for key in record.get("changed", []) if key in parameters}
    notebooks = [
        {"stem": stem, "page": (folder / f"{stem}.html").exists(), **entry}
        for stem, entry in sorted(record.get("notebooks", {}).items())
    ]
    epochs = _epochs(folder, parameters.get("weights") == "phantoms")
    for entry in notebooks:  # the time of its last call, in which epochs of earlier ones were found
        trained = sum(epoch["seconds"] for stage in TRAINED.get(entry["stem"][:2], ()) for epoch in epochs[stage])
        if "seconds" in entry:
            entry["seconds"] = max(entry["seconds"], trained)
    ran_with: dict[str, dict[str, list[str]]] = {"commit": {}, "lock": {}}
    for entry in (entry for entry in notebooks if entry.get("commit")):  # those that have run
        clean = "" if entry.get("clean", True) else " with uncommitted changes"
        ran_with["commit"].setdefault(f"{entry['commit'][:12]}{clean}", []).append(entry["stem"][:2])
        ran_with["lock"].setdefault((entry.get("lock") or "unknown")[:12], []).append(entry["stem"][:2])
    now = record.get("git") or {}
    last = f"{(now.get('commit') or '')[:12]}{'' if now.get('clean', True) else ' with uncommitted changes'}"
    saved = _saved_model(folder, parameters) if parameters.get("model") else {}
    if saved:  # what a training would have been is nobody's
        own = {name for name, field in config.FIELDS.items() if field.metadata["notebook"] in ("01", "05", "06")}
        parameters = {name: value for name, value in parameters.items() if name in own - {"threshold_policy"}}
    summary = storage.read_json(folder / "explanations.json").get("summary")
    text = (
        _environment()
        .get_template("index.html.j2")
        .render(
            record=record,
            run=record.get("run", folder.name),
            banner=of_phantoms(record, folder),
            notebooks=notebooks,
            total=sum(entry.get("seconds") or 0 for entry in notebooks),
            memory=max((entry.get("peak_memory") or 0 for entry in notebooks), default=0),
            metrics=_metrics(storage.read_json(folder / "metrics.json")),
            stale=[record["notebooks"][stem].get("title", stem) for stem in provenance.unevaluated(record, folder)],
            localisation=flatten(summary) if isinstance(summary, dict) else [],
            commits=ran_with["commit"] if set(ran_with["commit"]) != {last} else {},
            locks=ran_with["lock"],
            cost=_cost(folder, epochs),
            saved=saved,
            changed=changed,
            unchanged={key: value for key, value in parameters.items() if key not in changed},
        )
    )
    index = folder / "index.html"
    if not index.exists() or index.read_text(encoding="utf-8") != text:
        storage.write_text(index, text)
    return index


def render_comparison(first: str, second: str, parts: list, banner: bool) -> str:
    """The page of `helpers.compare`: (title, sentence or {"columns", "data"}) one below the other.

    `banner`: whether one of the runs is about phantoms.
    """
    template = _environment().get_template("compare.html.j2")
    return template.render(first=first, second=second, parts=parts, banner=banner)
