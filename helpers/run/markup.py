"""Cells of a notebook as pieces of HTML: headings with anchors, outputs, tables, figures, tracebacks."""

from __future__ import annotations

import base64
import html as html_text
import re

import nbformat
from markupsafe import Markup
from nbconvert.filters import ansi2html, markdown2html

WIDGET = "application/vnd.jupyter.widget-view+json"
_NUMBER = re.compile(r"[-+−±<>≥≤]?\s*\d[\d.,\s]*(e[-+]?\d+)?\s*%?|nan|NaN|—|–|-|")


def plain(markup: str) -> str:
    return html_text.unescape(re.sub(r"<[^>]+>", "", markup)).strip()


def headings(markup: str, contents: list[dict]) -> str:
    """`markup` with an id, unique over the page, on every heading, each of which is added to `contents`."""

    def mark(match: re.Match) -> str:
        level, inner = int(match.group(1)), re.sub(r'<a class="anchor-link".*?</a>', "", match.group(2))
        text = plain(inner)
        slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        taken = {entry["slug"] for entry in contents}
        number = 2
        unique = slug
        while unique in taken:
            unique, number = f"{slug}-{number}", number + 1
        contents.append({"level": level, "slug": unique, "text": text})
        return f'<h{level} id="{html_text.escape(unique)}">{inner}</h{level}>'

    return re.sub(r"<h([1-6])\b[^>]*>(.*?)</h\1>", mark, markup, flags=re.DOTALL)


def terminal_text(text: str) -> str:
    """What a terminal would show of `text`: a carriage return goes back to the line's start, a backspace one back."""
    lines = []
    for line in text.split("\n"):
        parts = [part for part in line.split("\r") if part]
        line = parts[-1] if parts else ""
        while "\b" in line:
            line = re.sub(r"^\x08+|[^\x08]\x08", "", line)
        lines.append(line)
    return "\n".join(lines)


def align_numbers(table: str) -> str:
    """Columns of an HTML table that hold nothing but numbers, header included, get the class "n", long text "long"."""
    table = re.sub(r"<td>([^<]{30,})</td>", r'<td class="long">\1</td>', table)
    if re.search(r"(row|col)span", table):
        return re.sub(r"<td>(\s*[-+]?\d[\d.,]*%?\s*)</td>", r'<td class="n">\1</td>', table)
    rows = [re.findall(r"<(t[dh])\b[^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in table.split("</tr>")]
    width = max((len(row) for row in rows), default=0)
    numeric = []
    for column in range(width):
        cells = [plain(row[column][1]) for row in rows if len(row) > column and row[column][0] == "td"]
        numeric.append(any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells))

    def mark(row: str) -> str:
        columns = iter(numeric)

        def cell(match: re.Match) -> str:
            tag, attributes = match.groups()
            if not next(columns, False):
                return match.group(0)
            attributes = attributes if "class=" in attributes else attributes + ' class=""'
            return f"<{tag}{attributes}>".replace('class="', 'class="n ', 1).replace('"n "', '"n"')

        return re.sub(r"<(t[dh])\b([^>]*)>", cell, row)

    return "</tr>".join(mark(row) for row in table.split("</tr>"))


def _rich(markup: str) -> str:
    markup = re.sub(r"<style scoped>.*?</style>", "", markup, flags=re.DOTALL)
    markup = re.sub(r"<script\b.*?</script>", "", markup, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"<table\b.*?</table>", lambda match: align_numbers(match.group(0)), markup, flags=re.DOTALL)


def _image(kind: str, data: str, metadata: dict) -> str:
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode()).decode()
    size = metadata.get(kind, {}) if isinstance(metadata.get(kind, {}), dict) else {}
    extent = "".join(f' {side}="{int(size[side])}"' for side in ("width", "height") if size.get(side))
    text = html_text.escape(metadata.get("alt", "figure") if isinstance(metadata.get("alt", "figure"), str) else "")
    return f'<img src="data:{kind};base64,{html_text.escape("".join(data.split()))}"{extent} alt="{text}">'


def _output(output, hidden) -> tuple[str, str] | None:
    """(kind, HTML) of one output; None for what is left out of a page: stderr and widgets with no fallback."""
    if output.output_type == "stream":
        text = terminal_text(hidden(output.text))
        return None if output.name == "stderr" or not text.strip() else ("text", f"<pre>{ansi2html(text)}</pre>")
    if output.output_type == "error":
        return "error", f"<pre>{ansi2html(hidden(chr(10).join(output.traceback)))}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        return "rich", _rich(hidden(data["text/html"]))
    for kind in ("image/svg+xml", "image/png", "image/jpeg", "image/gif"):
        if kind in data:
            return "figure", _image(kind, data[kind], output.get("metadata", {}))
    if WIDGET in data:
        return "note", "Interactive: works when the notebook is open, or on the page that <code>make app</code> serves."
    if "text/markdown" in data:
        return "md", markdown2html(hidden(data["text/markdown"]))
    text = hidden(data.get("text/plain", ""))
    return ("text", f"<pre>{ansi2html(text)}</pre>") if text.strip() else None


def outputs(cell, hidden) -> list[dict]:
    """Outputs of a code cell, stream pieces joined, as {"kind", "html"}."""
    joined: list = []
    for output in cell.outputs:
        same = joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name
        if same:
            joined[-1] = nbformat.v4.new_output("stream", name=output.name, text=joined[-1].text + output.text)
        elif not (output.output_type == "stream" and output.name == "stderr"):
            joined.append(output)
    shown = [_output(output, hidden) for output in joined]
    return [{"kind": kind, "html": Markup(markup)} for kind, markup in filter(None, shown)]  # noqa: S704 - made above
