"""Slides of an executed notebook, by the same options as `make slides`."""

from __future__ import annotations

import re
import shlex

import nbformat
from bs4 import BeautifulSoup

from helpers import config


def test_slides_need_no_network_and_no_script(smoke, tmp_path):
    notebook = nbformat.read(smoke.folder / "05_evaluation.ipynb", as_version=nbformat.NO_CONVERT)
    tagged = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in notebook.cells:
        cell.metadata.pop("slideshow", None)
    for cell, kind in zip(tagged, ("slide", "subslide", "skip"), strict=False):
        cell.metadata["slideshow"] = {"slide_type": kind}
    tagged[2].source = "not to be shown"
    nbformat.write(notebook, tmp_path / "05_evaluation.ipynb")
    makefile = (config.ROOT / "Makefile").read_text(encoding="utf-8")
    (options,) = re.findall(r"-m nbconvert (.*?)--output-dir", makefile, re.DOTALL)
    options = shlex.split(options.replace("\\\n", ""))
    done = smoke.clone.python("nbconvert", *options, "--output-dir", tmp_path, tmp_path / "05_evaluation.ipynb")
    assert done.returncode == 0, done.stderr
    page = BeautifulSoup((tmp_path / "05_evaluation.slides.html").read_text(encoding="utf-8"), "html.parser")
    assert len(page.select("section > section")) == 2
    assert page.h1.get_text() in tagged[0].source
    assert "not to be shown" not in page.get_text()
    assert not page.select("script, link")
    images = page.select("img")
    assert images
    assert all(image["src"].startswith("data:") for image in images)
