"""Make the README's pictures from a finished demo run: `make pictures` (needs Chromium)."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
RUN = DOCS.parent / "reports" / "demo"
FIGURES = {
    "phantoms.png": ("01_eda", "plots.image_grid"),
    "heatmaps.png": ("06_grad_cam", "plots.heatmap_rows(pixels[shown"),
}


def figure(notebook: Path, call: str) -> bytes:
    """The first picture that the cell with `call` in it left in an executed notebook."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and call in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise SystemExit(f"{notebook} holds no figure of {call}: run `make reports` first.")


def index(browser: Browser) -> None:
    """The run's index down to its cases, as wide as a screen and as a phone."""
    for name, width in (("index.png", 1000), ("index_phone.png", 400)):
        page = browser.new_page(viewport={"width": width, "height": 1200})
        page.goto((RUN / "index.html").as_uri())
        end = page.locator("h2", has_text="Pages") if width > 400 else page.locator(".cases")
        box = end.bounding_box()
        assert box, "the index has no pages, or no cases: make reports first"
        page.screenshot(path=DOCS / name, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": box["y"]})
        page.close()


def states(scratch: Path) -> dict[str, list[Path]]:
    """What the page is given, by the state it shows then: films of the run, one turned upside down, and a text.

    The last two are made in the folder `scratch`.
    """
    films, card = DOCS.parent / "data" / "demo", json.loads((RUN / "model" / "model.json").read_text(encoding="utf-8"))
    test = pd.read_csv(RUN / "predictions.csv").query("split == 'test'").sort_values("probability")
    low, high = card["uncertain"]
    unsure = test[test["probability"].between(low, high, inclusive="both")]
    turned, text = scratch / "upside-down.png", scratch / "text.jpeg"
    Image.open(films / test["path"].iloc[-1]).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(turned)
    text.write_text("This is no image.", encoding="utf-8")
    return {
        "empty": [],
        "sure": [films / test["path"].iloc[-1]],
        "unsure": [films / unsure["path"].iloc[len(unsure) // 2]],
        "warned": [turned],
        "error": [text],
        "many files": [films / path for path in test["path"].iloc[:: len(test) // 7]],
    }


def prediction(browser: Browser, end: str, width: int, shown: int) -> None:
    """The page in each of its states, `width` wide: on one sheet, `shown` wide each, and a sure answer alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "helpers.serve", "--port", str(port), "--model", str(RUN / "model")]
    scratch = tempfile.mkdtemp()
    server = subprocess.Popen(command, cwd=DOCS.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        pictures: dict[str, Image.Image] = {}
        for state, files in states(Path(scratch)).items():
            page = browser.new_page(viewport={"width": width, "height": 1200})
            page.goto(f"http://127.0.0.1:{port}/", timeout=180_000)
            page.locator(".xray-upload input").wait_for(state="attached", timeout=180_000)
            if files:
                page.locator(".xray-upload input").set_input_files(files)
                rows = page.locator(".xray-table td:first-child")
                done = ".xray-banner" if state == "error" else "[data-heat=Grad-CAM]"
                page.locator(done).first.wait_for(timeout=180_000)
                while state == "many files" and rows.count() < len(files):
                    page.wait_for_timeout(200)
            page.wait_for_timeout(1000)  # until all is drawn
            if state == "sure":
                page.locator("body").screenshot(path=DOCS / f"page{end}.png")
            pictures[state] = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            page.close(run_before_unload=True)
        beside(pictures, shown).save(DOCS / f"page_states{end}.png", optimize=True)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(scratch)


def beside(pictures: dict[str, Image.Image], width: int) -> Image.Image:
    """All pictures in rows of three, each `width` wide below its name, in few colours."""
    small = {name: one.resize((width, one.height * width // one.width)) for name, one in pictures.items()}
    height = 40 + max(one.height for one in small.values())
    sheet = Image.new("RGB", (3 * width + 40, -(-len(small) // 3) * height), "white")
    for place, (name, one) in enumerate(small.items()):
        left, top = place % 3 * (width + 20), place // 3 * height
        ImageDraw.Draw(sheet).text((left + 4, top + 6), name, fill="black", font_size=22)
        sheet.paste(one.convert("RGB"), (left, top + 38))
    return sheet.quantize(128)


def main() -> None:
    for name, (notebook, call) in FIGURES.items():
        (DOCS / name).write_bytes(figure(RUN / f"{notebook}.ipynb", call))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("index.png and the page's are unchanged: they take Chromium, which is not installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        index(browser)
        prediction(browser, "", 1280, 640)  # a server takes eight visitors at once
        prediction(browser, "_phone", 400, 400)
        browser.close()


if __name__ == "__main__":
    main()
