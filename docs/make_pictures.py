"""Make the README's pictures from a finished demo run: `make pictures` (needs Chromium)."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
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


def prediction(browser: Browser) -> None:
    """The page with its answer to one of the run's phantoms, as wide as a screen and as a phone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "helpers.serve", "--port", str(port), "--model", str(RUN / "model")]
    server = subprocess.Popen(command, cwd=DOCS.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        film = min((DOCS.parent / "data" / "demo" / "test" / "PNEUMONIA").iterdir())
        for name, width in (("page.png", 1280), ("page_phone.png", 400)):
            page = browser.new_page(viewport={"width": width, "height": 1200})
            page.goto(f"http://127.0.0.1:{port}/", timeout=180_000)
            page.locator(".xray-upload input").set_input_files(film, timeout=180_000)
            page.locator("[data-heat=Grad-CAM]").wait_for(timeout=180_000)
            page.wait_for_timeout(1000)  # until all is drawn
            page.locator("body").screenshot(path=DOCS / name)
            page.close(run_before_unload=True)
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    for name, (notebook, call) in FIGURES.items():
        (DOCS / name).write_bytes(figure(RUN / f"{notebook}.ipynb", call))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("index.png and the page's are unchanged: they take Chromium, which is not installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        index(browser)
        prediction(browser)
        browser.close()


if __name__ == "__main__":
    main()
