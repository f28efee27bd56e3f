"""Make the README's pictures from a finished demo run: `make pictures` (needs Chromium for the page's screenshot)."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

DOCS = Path(__file__).resolve().parent
RUN = DOCS.parent / "reports" / "demo"
FIGURES = {"phantoms.png": ("01_eda", "plots.image_grid"), "heatmaps.png": ("06_grad_cam", "plots.image_grid")}


def figure(notebook: Path, call: str) -> bytes:
    """The first picture that the cell with `call` in it left in an executed notebook."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and call in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise SystemExit(f"{notebook} holds no figure of {call}: run `make reports` first.")


def main() -> None:
    for name, (notebook, call) in FIGURES.items():
        (DOCS / name).write_bytes(figure(RUN / f"{notebook}.ipynb", call))
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        sys.exit("index.png is unchanged: it takes Chromium, which is not installed.")
    with tempfile.TemporaryDirectory() as profile:
        flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars"
        options = [f"--user-data-dir={profile}", f"--screenshot={DOCS / 'index.png'}", "--window-size=1000,1150"]
        command = [browser, *flags.split(), *options, (RUN / "index.html").as_uri()]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603


if __name__ == "__main__":
    main()
