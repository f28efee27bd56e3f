"""The pages of a run in a browser: what they look like narrow and wide, to a screen reader, and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

MOST_SHEETS = {"index": 4, "05_evaluation": 16, "06_grad_cam": 12}
OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, pre, .symbols')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"""


@pytest.fixture(params=MOST_SHEETS)
def page(browser, smoke, request) -> Iterator[Page]:
    """A page of the smoke run, its name as title of the fixture's parameter."""
    page = browser.new_page()
    page.goto((smoke.folder / f"{request.param}.html").as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_of_a_page_is_cut_off_at_its_right(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


def test_the_headline_numbers_need_no_scrolling_on_a_phone(browser, smoke):
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.goto((smoke.folder / "index.html").as_uri())
    for table in (".counts", ".metrics >> nth=0"):
        box = page.locator(table).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    assert page.locator(".metrics >> nth=0").locator(".interval:visible").count() > 5
    page.close()


def test_axe_finds_nothing_serious_in_a_page(page):
    found = Axe().run(page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


def test_a_page_prints_on_a_few_sheets_of_a4_without_code(page, request):
    printed = page.pdf(prefer_css_page_size=True)
    sheets = re.findall(rb"/Type\s*/Page\b", printed)
    assert 1 <= len(sheets) <= MOST_SHEETS[request.node.callspec.params["page"]]
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", printed)}
    assert {(round(width), round(height)) for *_, width, height in boxes} == {(595, 842)}
    page.emulate_media(media="print")
    assert page.locator("details.code:visible, .side:visible, .steps:visible, details:not([open]):visible").count() == 0
    assert page.locator("h1:visible").count() == 1
