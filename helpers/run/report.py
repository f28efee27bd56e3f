"""Pages of a run: an executed notebook as one HTML file, the index that ties them together, comparisons.

A page is complete in itself: style and figures are inside, nothing is fetched, and a content security policy keeps
any script from running, whatever a file name or an output says.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from helpers import config, dataset, evaluation, storage
from helpers.run import provenance, state

TEMPLATES = Path(__file__).resolve().parent / "templates"
BANNER = f"Phantom run. {config.PHANTOMS}"
LEFT_OUT = "A picture is left out: only the plots of a report are published."
TRAINED = {"pretraining": "03", "head": "03", "fine_tuning": "04"}  # which notebook has which training
SHOWN = ["text/html", "image/svg+xml", "image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"]
SHOWN += ["text/markdown", "text/plain"]  # the first of these that an output has
_NUMBER = re.compile(r"[-+−±<>≥≤]?\s*\d[\d.,\s]*(e[-+]?\d+)?\s*%?|nan|NaN|—|–|-")


def human_time(seconds: float | None) -> str:
    """41.2 -> "41 s", 200 -> "3 min 20 s", 4000 -> "1 h 06 min"; "" for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{seconds:.1f} s" if round(seconds) < 10 else f"{round(seconds)} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def human_bytes(count: float | None) -> str:
    """1_234_000_000 -> "1.2 GB", below a gigabyte in MB; "" for None."""
    text = f"{count / 1e9:.1f} GB" if count and count >= 995e6 else f"{(count or 0) / 1e6:.0f} MB"
    return "" if count is None else text


def human_name(key: str) -> str:
    """A key of metrics.json or explanations.json in words."""
    words = evaluation.in_words(key)
    return key if key == "n" else words[:1].upper() + words[1:]


def human_value(value: Any) -> str:
    """A number, an interval {"value", "low", "high"}, a truth value or a text, for a table cell."""
    if isinstance(value, dict):
        return evaluation.with_interval(value)
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def of_100(count: int, total: int) -> int:
    """How many of 100 `count` of `total` are, as a whole number: 0 and 100 for none and all alone."""
    return min(max(round(100 * count / total), int(count > 0)), 100 - int(count < total))


FILTERS = {"time": human_time, "bytes": human_bytes, "value": human_value, "words": human_name, "of_100": of_100}


@functools.cache
def _exporter() -> HTMLExporter:
    """nbconvert with the templates of this folder, in which all text is escaped that is not said to be HTML."""
    blocks = Path(sys.prefix, "share/jupyter/nbconvert/templates")  # nbconvert's own, whatever a home has beside them
    exporter = HTMLExporter(
        template_file="page.html.j2",
        template_paths=[str(TEMPLATES), str(blocks / "base"), str(blocks)],
        exclude_anchor_links=True,
        filters=FILTERS,
        config=Config(
            {"NbConvertBase": {"display_data_priority": SHOWN}, "CoalesceStreamsPreprocessor": {"enabled": True}}
        ),
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + HtmlFormatter(style="friendly").get_style_defs()
    environment: Environment = exporter.environment
    environment.autoescape = lambda name: not (name or "").endswith(".md.j2")
    environment.trim_blocks = environment.lstrip_blocks = True
    globals_ = {"style": Markup(style), "banner_text": BANNER, "traps": config.TRAPS}  # noqa: S704 - our own CSS
    environment.globals |= globals_
    return exporter


def opening(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """Title (its h1) and purpose (its first paragraph) of a notebook, as plain text; "" where there is none."""
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    soup = BeautifulSoup(markdown2html(prose).replace("&#182;", ""), "html.parser")  # the sign of an anchor
    title, purpose = (" ".join(found.get_text().split()) if found else "" for found in (soup.h1, soup.p))
    return title, purpose


def hidden(value: Any, hide: dict[str, str]) -> Any:
    """A part of a notebook with texts replaced, wherever they are but in images; the longest first."""
    if isinstance(value, dict):
        for key in value:
            value[key] = value[key] if str(key).startswith("image/") else hidden(value[key], hide)
    elif isinstance(value, list):
        value[:] = [hidden(member, hide) for member in value]
    elif isinstance(value, str):
        for found, short in sorted(hide.items(), key=lambda pair: -len(pair[0])):
            value = value.replace(found, short)
    return value


def _align_numbers(table: Tag) -> None:
    """Give the cells of columns that hold nothing but numbers, header included, the class "n"."""
    rows = [row.find_all(["td", "th"])[::-1] for row in table.find_all("tr")]  # cells that span rows are on the left
    for column in itertools.zip_longest(*rows):
        cells = [cell for cell in column if cell is not None]
        texts = [cell.get_text().strip() for cell in cells if cell.name == "td"]
        if any(texts) and all(_NUMBER.fullmatch(text) for text in texts):
            for cell in cells:
                cell["class"] = " ".join([*cell.get_attribute_list("class"), "n"])


def _finish(page: str, published: Sequence[str]) -> str:
    """What concerns the whole of a page: contents, links to other pages, tables that scroll; no script is left.

    Of a page that is one of `published` (stems), pictures go that are not of a cell with the tag "plot".
    """
    soup = BeautifulSoup(page, "html.parser")
    # pandas gives each table a style; the still picture needs its own
    for part in soup.select("main script, main style"):
        if not (part.name == "style" and part.find_next_sibling(class_="xray")):
            part.decompose()
    for picture in soup.select("main :is(img, svg, canvas, video, object, embed, iframe)") if published else ():
        if not picture.find_parent(class_="plot"):
            picture.replace_with(soup.new_tag("p", attrs={"class": "note"}, string=LEFT_OUT))
    for tag in soup.select("main *") if published else ():
        embedded = [name for name, value in tag.attrs.items() if "data:" in str(value)]
        for name in embedded if not tag.find_parent(class_="plot") else ():
            del tag[name]
    for link in soup.select(".md a[href]"):
        href = str(link["href"])  # a page lies one folder deeper than its notebook, a published one two
        if (other := re.match(r"(\d\d_\w+)\.ipynb", href)) and (not published or other[1] in published):
            link["href"] = href.replace(".ipynb", ".html", 1)
        elif other or href.startswith("../"):
            link["href"] = ("../../../notebooks/" if other else "../../" if published else "../") + href
    for table in soup.select("main table"):
        _align_numbers(table)
        if not table.find_parent(class_="wide"):
            table.wrap(soup.new_tag("div", attrs={"class": "wide", "tabindex": "0"}))
    taken: set[str] = set()
    for heading in soup.select("main .md :is(h1, h2, h3, h4)"):
        slug = re.sub(r"[^\w]+", "-", heading.get_text().lower()).strip("-") or "section"
        names = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
        heading["id"] = anchor = next(name for name in names if name not in taken)
        taken.add(anchor)
        for contents in soup.select("ul.toc") if heading.name in ("h2", "h3") else ():
            link = soup.new_tag("a", attrs={"href": f"#{anchor}"}, string=heading.get_text().strip())
            contents.append(link)
            link.wrap(soup.new_tag("li", attrs={"class": heading.name}))
    return str(soup)


def render(
    notebook: Path,
    page: Path,
    pages: Sequence[tuple[str, str]] = (),
    record: dict | None = None,
    failure: dict | None = None,
    hide: dict[str, str] | None = None,
    published: bool = False,
) -> None:
    """Write the executed `notebook` as the HTML file `page`.

    `pages` are (stem, title) of all notebooks of the run, for the links; `record` is its run.json; `failure` is
    {"cell", "message", "advice"} of the cell that stopped it; `hide` replaces texts (this machine's
    paths) in code and outputs; `published` leaves out every picture that is no plot.
    """
    content = nbformat.read(notebook, as_version=4)
    hidden(content.cells, hide or {})
    record = record or {}
    about: dict[str, object] = {"title": opening(content)[0] or page.stem, "stem": page.stem, "pages": pages}
    about |= {"record": record, "failure": failure, "banner": of_phantoms(record, notebook.parent)}
    text = _exporter().from_notebook_node(content, resources={"page": about})[0]
    storage.write_text(page, _finish(text, [stem for stem, _ in pages] if published else []))


def of_phantoms(record: dict, folder: Path) -> bool:
    """Whether the run is about phantoms: it drew them, or its model was trained on them."""
    drawn = record.get("parameters", {}).get("phantoms", 0) > 0
    return drawn or bool(storage.read_json(folder / "model/model.json").get("phantoms"))


def _trainings(folder: Path, pretrained: bool) -> dict[str, list[float]]:
    """Seconds of every epoch, by the stage that was trained."""
    stages = [stage for stage in TRAINED if pretrained or stage != "pretraining"]
    found = {stage: storage.read_json(folder / "training" / stage / "state.json") for stage in stages}
    histories = {stage: recorded.get("history", [])[1:] for stage, recorded in found.items()}  # without epoch 0
    return {stage: [epoch["seconds"] for epoch in history] for stage, history in histories.items() if history}


def write_index(folder: Path, target: Path | None = None, hide: dict[str, str] | None = None) -> Path:
    """Write index.html of the run in `folder`, into `target` where its report is published; its path.

    `hide` as in `render`. Equal contents are left alone, so that a finished run is not touched.
    """
    files = {"metrics": "metrics.json", "explanations": "explanations.json", "card": "model/model.json"}
    found: dict[str, Any] = {name: storage.read_json(folder / file) for name, file in files.items()}
    record, metrics = hidden(storage.read_json(folder / "run.json"), hide or {}), found["metrics"]
    parameters = record.get("parameters", {})
    cost = _trainings(folder, parameters.get("weights") == "phantoms")
    notebooks = []
    for stem, entry in sorted(record.get("notebooks", {}).items()):
        trained = sum(sum(cost[stage]) for stage in cost if TRAINED[stage] == stem[:2])  # in earlier calls, perhaps
        more = {"stem": stem, "number": stem[:2], "page": ((target or folder) / f"{stem}.html").exists()}
        more |= {"seconds": max(entry["seconds"], trained)} if "seconds" in entry else {}
        notebooks.append(entry | more | {"code": provenance.commit_of(entry)})
    if parameters.get("model"):  # what a training would have been is nobody's
        own = {name for name, field in config.FIELDS.items() if field.metadata["notebook"] in ("01", "05", "06")}
        parameters = {name: parameters[name] for name in parameters.keys() & own - {"threshold_policy", "image_size"}}
    phantoms, splits = of_phantoms(record, folder), [name for name in ("test", "validation") if name in metrics]
    if splits and (folder / "predictions.csv").exists():
        shown = dataset.read_table(folder / "predictions.csv", "05_evaluation").query(f"split == '{splits[0]}'")
        band = tuple(found["card"].get("uncertain") or (0, 1))
        found["sure"] = evaluation.certainty(
            shown["label"] == evaluation.POSITIVE, shown["probability"], band
        ).to_dict()
        listed = folder / "splits.csv"  # missing while notebook 02 makes it anew
        found["public"] = listed.exists() and dataset.public_names(dataset.read_table(listed, "02_preprocessing"))
    shows = state.explained(record) and not target
    cases = storage.read_json(folder / "cases.json").get("cases", []) if shows else []
    found |= {"record": record, "run": record.get("run", folder.name), "banner": phantoms, "splits": splits}
    found |= {"notebooks": notebooks, "last": provenance.commit_of(record.get("git") or {}), "cost": cost}
    found |= {"parameters": parameters, "stale": state.unevaluated(record, folder), "cases": cases}
    text, index = write("index.html.j2", published=bool(target), **found), (target or folder) / "index.html"
    if not index.exists() or index.read_text(encoding="utf-8") != text:
        storage.write_text(index, text)
    return index


def write(template: str, **values: Any) -> str:
    """A page that is no notebook's, or a text."""
    return _exporter().environment.get_template(template).render(values)
