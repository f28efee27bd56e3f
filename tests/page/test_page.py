"""The page in a browser: `python -m helpers.serve` in a copy of the clone, visited by Chromium, with no network."""

from __future__ import annotations

import base64
import contextlib
import csv
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Download, Locator, Page, expect

from helpers import config, model, predict
from helpers.page import app, upload
from helpers.serve import server
from tests.conftest import dicom, make_clone, planted_film
from tests.page.proxy import proxied

SICK, HEALTHY = planted_film((2, 20), 96), planted_film(None, 96)
PATIENT = "Doe^Jane"


def encoded(film: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def large_dicom() -> bytes:
    """A radiograph of 20 MB, 16 bits allocated, 12 stored, with a patient's name in its header."""
    film = np.asarray(Image.fromarray(SICK).resize((3300, 3300))).astype(np.uint16) * 16
    data = dicom(film, PatientName=PATIENT, PatientID="0815", Modality="DX")
    assert len(data) > 20e6
    return data


@pytest.fixture(scope="module")
def folder(planted, planted_folder, tmp_path_factory) -> Path:
    """The planted classifier as the clone's data/pretrained, with measured numbers and a band of doubt."""
    card = model.read_card(planted_folder)
    rates = {"sensitivity": {"value": 0.9}, "specificity": {"value": 0.8}}
    points = {"threshold": [0.0, 0.5, 1.0], "sensitivity": [1.0, 0.7, 0.0], "specificity": [0.0, 0.6, 1.0]}
    target = make_clone(tmp_path_factory.mktemp("page") / "clone").root / "data" / "pretrained"
    known = {"metrics": {"test": {"n": 77, "prevalence": 0.5} | rates}, "operating_points": points}
    model.save(planted, target, card | known | {"uncertain": [0.35, 0.45], "phantoms": False})
    return target


@contextlib.contextmanager
def served(
    clone: Path, module: str, *arguments: str, answers: str = "voila/api/shutdown", environment: dict | None = None
) -> Iterator[str]:
    """The address of `python -m module` on a free port, started in `clone` and ended afterwards.

    `answers` is a path below the address that costs little and tells that the server is up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = clone / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "--port", str(port), *arguments],
            cwd=clone, stdout=file, stderr=subprocess.STDOUT, env=os.environ | (environment or {}),
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(f"the server ended: {log.read_text()}")
            try:
                urllib.request.urlopen(url + answers, timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    """The page, served from a clone that has no dataset and no run, on a free port."""
    with served(folder.parent.parent, "helpers.serve") as url:
        yield url


def status(url: str, headers: dict[str, str] | None = None) -> int:
    """The HTTP status of a request; not by urllib, which allows no upgrade to a websocket."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("GET", parts.path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


class Visit:
    """A person on the page: a tab, what its console said, and which hosts it asked."""

    all: ClassVar[list[Visit]] = []

    def __init__(self, browser: Browser, address: str, **context):
        self.page: Page = browser.new_context(**context).new_page()
        self.console: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", self.listen)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", request.url)))
        self.address = address
        self.all.append(self)
        self.page.goto(address, timeout=120_000)
        if "/lab/" in address:
            self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_text("Run All Cells", exact=True).click()
        expect(self.page.locator(".xray-upload")).to_be_visible(timeout=120_000)

    def listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console.append(message.text)

    def leave(self) -> None:
        """Close the tab, which ends the kernel, so that others find a place; the console then tells of its end."""
        self.page.remove_listener("console", self.listen)
        self.page.close(run_before_unload=True)

    def upload(self, *files: tuple[str, bytes]) -> None:
        payload = [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
        self.page.locator(".xray-upload input").set_input_files(payload)

    def sample(self, title: str) -> None:
        """Choose a sample, by its number, and let the answer be shown."""
        self.page.get_by_role("button", name=title).click()
        self.page.get_by_role("button", name="Show the answer").click(timeout=20_000)

    @property
    def viewer(self) -> Locator:
        return self.page.locator(".xray-viewer")

    def expect_heat(self, method: str = "Grad-CAM") -> None:
        expect(self.viewer).to_have_attribute("data-heat", method, timeout=20_000)

    def key(self, *keys: str) -> None:
        self.viewer.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def pixels(self, side: int) -> np.ndarray:
        """What is drawn on the left (0) or right (1), uint8 (h, w, 4)."""
        script = "c => c.toDataURL('image/png')"
        data = self.viewer.locator(".xray-panes canvas").nth(side).evaluate(script)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))))

    def fold_out(self, title: str) -> None:
        button = self.page.get_by_role("button", name=title)
        if "▸" in button.inner_text():
            button.click()

    def expect_text(self, text: str | re.Pattern, seconds: float = 20) -> None:
        expect(self.page.locator(".xray-page")).to_contain_text(text, timeout=1000 * seconds)

    def slider(self, name: str):
        return self.page.locator(".widget-hslider", has_text=name)

    def kernel(self) -> str:
        """The id of the kernel behind the tab."""
        return json.loads(self.page.locator("#jupyter-config-data").text_content())["kernelId"]

    def expect_row(self, file: str) -> None:
        """Wait for the image's row in the table of the session, which comes after its name."""
        expect(self.page.locator(".xray-table tr", has_text=file).first).to_be_visible(timeout=20_000)

    def table(self) -> list[dict]:
        """The CSV file, downloaded and read back."""
        with self.page.expect_download() as waiting:
            self.page.get_by_text("Download as CSV").click()
        text = waiting.value.path().read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def visit(browser, address) -> Visit:
    return Visit(browser, address)


def test_the_empty_page_says_what_it_is_for_and_which_model_it_uses(visit):
    visit.expect_text("Made for frontal chest X-rays of children aged 1 to 5, one hospital.")
    visit.expect_text("On adults it calls almost every film pneumonia. Not a medical device.")
    visit.expect_text("Drop X-rays here, or choose files")
    expect(visit.viewer).to_be_hidden()
    expect(visit.slider("Threshold")).to_be_hidden()  # nothing to decide yet
    visit.fold_out("About this model")
    visit.expect_text("Model: data/pretrained")
    visit.expect_text("90 of 100 images with pneumonia. It gave 20 of 100 normal images a false alarm.")


def test_of_the_notebook_only_the_tool_is_on_the_page(visit):
    assert visit.page.get_by_role("heading", level=1).all_inner_texts() == ["Pneumonia on chest X-rays: try the model"]
    assert not visit.page.get_by_role("heading", level=2).count()
    zone = visit.page.locator(".xray-upload").bounding_box()
    assert zone["y"] + zone["height"] < 400  # seen without scrolling
    assert zone["width"] > 900  # and not missed


def test_files_without_a_suffix_can_be_chosen(visit):
    assert visit.page.locator(".xray-upload input").get_attribute("accept") is None
    visit.upload(("IM000001", dicom(SICK.astype(np.uint16) * 16)))
    visit.expect_text("IM000001")
    visit.expect_text("Signs of pneumonia")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("film.jpeg", encoded(SICK, "JPEG")),
        ("sixteen bits.png", encoded(SICK.astype(np.uint16) * 257, "PNG")),
        ("large.dcm", large_dicom()),
    ],
    ids=["JPEG", "PNG of 16 bits", "DICOM of 20 MB"],
)
def test_an_upload_gets_the_command_s_probability_and_a_heatmap(visit, folder, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (row,) = predict.predict_files(predict.Predictor.load(folder), [str(tmp_path / name)])
    visit.upload((name, content))
    expect(visit.page.locator(".xray-page h2").first).to_have_text(name, timeout=20_000)
    visit.expect_text(f"Signs of pneumonia: probability {float(row['probability']):.3f}")
    visit.expect_heat()
    shown = visit.table()[-1]
    assert shown["file"] == name
    assert abs(float(shown["probability"]) - float(row["probability"])) < 1e-5
    assert PATIENT not in visit.page.content()


def test_dropped_files_are_taken_as_chosen_ones(visit):
    visit.page.evaluate(
        """(bytes) => { const zone = document.querySelector('.xray-upload'), data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'dropped.png'));
        for (const name of ['dragenter', 'dragover', 'drop'])
          zone.dispatchEvent(new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true })); }""",
        list(encoded(SICK, "PNG")),
    )
    expect(visit.page.locator(".xray-page h2").first).to_have_text("dropped.png", timeout=20_000)


def test_image_and_heatmap_stand_side_by_side_at_equal_size(visit):
    visit.expect_heat()
    left, right = (visit.viewer.locator(".xray-panes canvas").nth(side).bounding_box() for side in (0, 1))
    assert (left["y"], left["width"], left["height"]) == (right["y"], right["width"], right["height"])
    assert right["x"] >= left["x"] + left["width"]
    assert left["width"] > 400
    grey, coloured = visit.pixels(0), visit.pixels(1)
    assert np.ptp(grey[..., :3], axis=2).max() <= 2
    assert np.ptp(coloured[..., :3], axis=2).max() > 60


def test_the_heatmap_goes_and_comes_by_one_key(visit):
    visit.key("h")
    expect(visit.viewer).to_have_attribute("data-heat", "")
    expect(visit.page.get_by_role("button", name="Heatmap")).to_have_attribute("aria-pressed", "false")
    assert np.array_equal(visit.pixels(0), visit.pixels(1))
    visit.key("h")
    visit.expect_heat()


def test_opacity_and_method_change_the_heatmap_and_a_bar_explains_it(visit):
    before = visit.pixels(1)
    visit.page.get_by_label("Opacity").fill("0")
    visit.page.wait_for_timeout(200)
    assert np.array_equal(visit.pixels(0), visit.pixels(1))
    visit.page.get_by_label("Opacity").fill("60")
    visit.page.wait_for_timeout(200)
    assert np.array_equal(visit.pixels(1), before)
    visit.page.get_by_label("Method of the heatmap").select_option("LayerCAM")
    visit.expect_heat("LayerCAM")
    expect(visit.page.locator(".xray-colours")).to_have_text("littlemuch")
    visit.page.get_by_label("Method of the heatmap").select_option("Grad-CAM")
    visit.expect_heat()


def test_what_the_model_sees_stands_beside_the_original(visit):
    visit.key("m")
    expect(visit.viewer.locator("figcaption").nth(1)).to_contain_text("what the model sees (32 px)")
    visit.key("m")
    expect(visit.viewer.locator("figcaption").nth(1)).not_to_contain_text("what the model sees")


def test_zoom_and_move_by_keys_and_buttons_and_all_is_reset(visit):
    visit.key("r")
    before = visit.pixels(0)
    visit.key("+", "+", "ArrowRight")
    expect(visit.viewer).to_have_attribute("data-zoom", "1.56")
    expect(visit.viewer).to_have_attribute("data-x", "-0.100")
    visit.key("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    expect(visit.viewer).to_have_attribute("data-x", "-0.281")  # no farther than to the edge
    assert not np.array_equal(visit.pixels(0), before)
    visit.page.get_by_role("button", name="Zoom out").click()
    expect(visit.viewer).to_have_attribute("data-zoom", "1.25")
    visit.page.get_by_role("button", name="Reset view").click()
    expect(visit.viewer).to_have_attribute("data-zoom", "1.00")
    visit.page.wait_for_timeout(200)
    assert np.array_equal(visit.pixels(0), before)


def test_window_and_level_by_drag_and_by_keys(visit):
    visit.key("r")
    before = visit.pixels(0).astype(int)
    box = visit.viewer.locator(".xray-panes canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 100, y - 40)
    visit.page.mouse.up()
    expect(visit.viewer).to_have_attribute("data-width", "128")  # to the right: twice the contrast
    expect(visit.viewer).to_have_attribute("data-level", "148")
    visit.key("r", "b")
    expect(visit.viewer).to_have_attribute("data-level", "120")
    visit.page.wait_for_timeout(200)
    assert visit.pixels(0).mean() > before.mean()
    visit.key("d", "d")
    expect(visit.viewer).to_have_attribute("data-level", "136")
    visit.key("c")
    expect(visit.viewer).to_have_attribute("data-width", "223")
    visit.key("x", "x")
    expect(visit.viewer).to_have_attribute("data-width", "294")
    visit.key("r")


def test_with_the_button_pressed_dragging_moves_the_zoomed_image(visit):
    visit.key("+", "+", "+")
    visit.page.get_by_role("button", name="Drag moves").click()
    box = visit.viewer.locator(".xray-panes canvas").first.bounding_box()
    visit.page.mouse.move(box["x"] + 200, box["y"] + 100)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 200 + box["width"] / 10, box["y"] + 100)
    visit.page.mouse.up()
    assert float(visit.viewer.get_attribute("data-x")) == pytest.approx(0.1, abs=0.01)
    expect(visit.viewer).to_have_attribute("data-level", "128")
    visit.page.get_by_role("button", name="Drag moves").click()
    visit.key("r")


def test_keys_type_in_a_field_and_do_nothing_else(visit):
    field = visit.page.get_by_label("Age in years")
    field.fill("")
    field.press_sequentially("h4")
    visit.expect_heat()
    field.fill("62")
    field.press("Enter")
    expect(visit.page.locator(".xray-banner")).to_contain_text(
        "made for children of 1 to 5; this patient's age is 62 years"
    )
    banner, line = (visit.page.locator(name).bounding_box() for name in (".xray-banner", ".xray-line"))
    assert banner["y"] < line["y"]
    assert visit.table()[-1]["age"] == "62"
    field.fill("")
    field.press("Enter")
    expect(visit.page.locator(".xray-banner")).to_have_count(0)


def saved(visit: Visit, button: str) -> Download:
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name=button).click()
    return waiting.value


def test_the_report_is_one_page_that_asks_nobody(visit, browser):
    visit.page.get_by_label("Your reading").select_option("unsure")
    visit.expect_text("Your reading: unsure")
    report = saved(visit, "Save report (HTML)")
    assert report.suggested_filename == "dropped.png.html"
    text = report.path().read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script", text)
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(text)
    for part in (
        "dropped.png",
        "Signs of pneumonia: probability",
        "unsure",
        "Model: data/pretrained",
        "not for clinical use",
    ):
        expect(page.locator("body")).to_contain_text(part)
    expect(page.locator("body")).to_contain_text(re.compile(r"20\d\d"))  # the date
    width, height = page.locator("img").evaluate("i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])")
    assert (width, height) == (1600, 790)
    assert not [url for url in asked if not url.startswith("data:")]
    page.close()


def test_the_report_s_picture_holds_image_heatmap_and_text(visit):
    picture = np.asarray(Image.open(saved(visit, "Save picture (PNG)").path()).convert("RGB")).astype(int)
    assert picture.shape[1] == 1600
    left, right, text = picture[:790, :790], picture[:790, 810:], picture[800:]
    assert np.ptp(left, axis=2).max() <= 2
    assert np.ptp(right, axis=2).max() > 60
    assert (text < 100).mean() > 0.005


def test_a_text_file_with_an_image_s_name_is_refused_in_words(visit):
    name = '<img src=x onerror="document.title=1">.jpg'
    visit.upload((name, b"Dear doctor,"))
    visit.expect_text("This file cannot be used:")
    visit.expect_row(name)
    expect(visit.viewer).to_be_hidden()
    assert visit.page.title() != "1"
    assert "cannot be read as an image" in visit.table()[-1]["error"]


def test_what_is_too_large_is_refused_in_the_browser(visit):
    before = len(visit.table())
    visit.page.evaluate(  # Playwright itself hands over no file above 50 MB
        """(size) => { const input = document.querySelector('.xray-upload input'), files = new DataTransfer();
        files.items.add(new File([new Uint8Array(size)], 'huge.dcm')); input.files = files.files;
        input.dispatchEvent(new Event('change')); }""",
        upload.MOST_BYTES + 1,
    )
    visit.expect_text("huge.dcm was not sent: it has 50 MB, and at most 50 MB are taken.")
    assert len(visit.table()) == before


def test_several_files_at_once_are_all_answered(visit):
    before = len(visit.table())
    visit.upload(("one.png", encoded(SICK, "PNG")), ("two.png", encoded(HEALTHY, "PNG")))
    visit.expect_row("two.png")
    rows = visit.table()[before:]
    assert [(row["file"], row["decision"]) for row in rows] == [("one.png", "PNEUMONIA"), ("two.png", "NORMAL")]


def test_the_threshold_moves_by_keyboard_and_predicts_nothing_anew(visit):
    visit.upload(("edge.png", encoded(SICK, "PNG")))
    visit.expect_row("edge.png")
    before = visit.table()[-1]
    assert before["decision"] == "PNEUMONIA"
    visit.fold_out("Another threshold")
    visit.fold_out("What does this number mean?")
    visit.slider("Threshold").get_by_role("slider").focus()
    visit.page.keyboard.press("End")
    visit.expect_text("threshold 1.000")
    visit.expect_text("At a threshold of 1.00 it found 0 of 100 images with pneumonia.")
    after = visit.table()[-1]
    assert (after["decision"], after["probability"]) == ("NORMAL", before["probability"])
    assert after["seconds"] == before["seconds"]
    visit.page.get_by_role("button", name="The model's own threshold").click()
    visit.expect_text("threshold 0.400")


def test_the_prevalence_of_one_s_place_changes_precision_alone(visit):
    before = visit.table()
    visit.expect_text("Where 50 of 100 patients have pneumonia, 82 of 100 alarms are right (precision)")
    field = visit.page.get_by_label("Pneumonia in 100 patients")
    field.fill("1")
    field.press("Enter")
    visit.expect_text("Where 1 of 100 patients have pneumonia, 4 of 100 alarms are right (precision)")
    assert visit.table() == before


def test_a_sample_s_label_and_answer_come_after_the_reader_s_own(visit):
    visit.page.get_by_role("button", name="Sample 1").click()
    visit.expect_text("What do you see?")
    expect(visit.page.locator(".xray-line")).to_have_count(0)
    expect(visit.viewer.locator(".xray-panes canvas").nth(1)).to_be_hidden()
    assert not visit.page.get_by_text(re.compile("phantom (NORMAL|PNEUMONIA)")).count()
    visit.page.get_by_role("button", name="I see none").click()
    visit.expect_text(re.compile("True label: phantom (NORMAL|PNEUMONIA)"))
    visit.expect_text("Your reading: NORMAL")
    visit.expect_heat()
    row = visit.table()[-1]
    assert (row["file"], row["own label"]) == ("Sample 1", "NORMAL")
    assert row["true label"].startswith("phantom ")


def test_samples_are_there_without_a_dataset(visit):
    assert visit.page.locator(".xray-gallery button").count() == 8


def test_the_next_uncertain_case_comes_by_one_key(visit):
    """None of the films here lies in the narrow uncertain range: the page says so."""
    visit.key("n")
    visit.expect_text("No answer of this session is uncertain.")


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(visit):
    visit.page.locator(".xray-upload input").focus()
    seen = []
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        seen.append(visit.page.evaluate(
            """() => { const e = document.activeElement, name = e.getAttribute('aria-label') || e.textContent.trim();
            return [name || e.id, getComputedStyle(e).outlineStyle, e.getAttribute('role')]; }"""
        ))  # fmt: skip
        if "Download as CSV" in seen[-1][0]:
            break
    names = [name for name, _, _ in seen]
    for wanted in (
        "Sample 1",
        "Image and heatmap",
        "Heatmap",
        "Opacity",
        "Brightness",
        "Save report (HTML)",
        "Threshold",
    ):
        assert any(wanted in name for name in names), wanted
    assert "Download as CSV" in names[-1]
    assert not [name for name, style, role in seen if style == "none" and role != "slider"]


@pytest.mark.parametrize("state", ["empty", "answered", "error"])
def test_axe_finds_nothing_serious(browser, address, visit, state):
    page = Visit(browser, address) if state == "empty" else visit
    if state == "error":
        page.upload(("letter.jpg", b"Dear doctor,"))
        page.expect_text("This file cannot be used:")
    found = Axe().run(page.page).response["violations"]
    if page is not visit:
        page.leave()
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


def test_two_people_do_not_see_each_other_s_images(browser, address, visit):
    visit.upload(("secret.png", encoded(SICK, "PNG")))
    visit.expect_text("secret.png")
    other = Visit(browser, address)
    assert "secret.png" not in other.page.content()
    other.upload(("mine.png", encoded(HEALTHY, "PNG")))
    other.expect_text("mine.png")
    assert [row["file"] for row in other.table()] == ["mine.png"]
    assert "mine.png" not in visit.page.content()
    other.leave()


def test_a_phone_s_width_is_enough(browser, address):
    phone = Visit(browser, address, viewport={"width": 360, "height": 740})
    phone.upload(("film.png", encoded(SICK, "PNG")))
    phone.expect_text("Signs of pneumonia")
    phone.expect_heat()
    left, right = (phone.viewer.locator(".xray-panes canvas").nth(side).bounding_box() for side in (0, 1))
    assert 0 <= left["x"] <= left["x"] + left["width"] <= 360
    assert (left["x"], left["width"], left["height"]) == (right["x"], right["width"], right["height"])
    assert right["y"] > left["y"] + left["height"]
    for title in ("What does this number mean?", "Another threshold", "About this model"):
        phone.fold_out(title)
    assert phone.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    header = phone.page.locator(".xray-table th").nth(1).bounding_box()
    assert header["height"] < 40, "a word is broken over several lines"
    for control in (".xray-upload", ".widget-hslider", ".xray-tools", ".widget-dropdown"):
        box = phone.page.locator(control).first.bounding_box()
        assert box["x"] + box["width"] <= 360
    phone.leave()


def test_closing_the_page_ends_its_kernel(browser, address):
    """Not minutes later, when idle kernels are culled."""
    person = Visit(browser, address)
    kernel = person.kernel()
    assert status(f"{address}api/kernels/{kernel}") == 200
    person.leave()
    end = time.monotonic() + 30
    while status(f"{address}api/kernels/{kernel}") == 200 and time.monotonic() < end:
        time.sleep(0.5)
    assert status(f"{address}api/kernels/{kernel}") == 404


def test_another_site_is_refused(visit, address):
    """A name that was made to point here, and a page elsewhere that opens a connection to a visitor's kernel."""
    elsewhere = "elsewhere.example:8866"
    assert status(address, {"Host": elsewhere}) == 403
    assert status(f"{address}api/kernels/{visit.kernel()}") == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==", "Origin": f"http://{elsewhere}"}
    assert status(f"{address}api/kernels/{visit.kernel()}/channels", upgrade) == 403


def test_the_first_visitor_s_kernel_starts_before_they_come(browser, folder):
    def kernels() -> list[str]:
        """The command lines of the kernels."""
        every = psutil.process_iter(["cmdline"])
        serving = [
            process for process in every if str(urllib.parse.urlsplit(url).port) in (process.info["cmdline"] or [])
        ]
        return [" ".join(child.cmdline()) for process in serving for child in process.children()]

    with served(folder.parent.parent, "helpers.serve") as url:
        end = time.monotonic() + 60
        while not kernels() and time.monotonic() < end:
            time.sleep(0.2)
        assert len(kernels()) == 1
        person = Visit(browser, url)
        assert [f"kernel-{person.kernel()}.json" in command for command in kernels()] == [True]
        person.leave()
        Visit.all.remove(person)  # its console tells of the lost connection


def test_the_page_answers_while_twenty_images_are_predicted(browser, address):
    busy = Visit(browser, address)
    large = encoded(SICK.repeat(50, axis=0).repeat(50, axis=1), "PNG")  # 23 megapixels: soon sent, slow to decode
    busy.upload(*((f"{number}.png", large) for number in range(20)))
    expect(busy.page.locator(".xray-page h2").first).to_have_text(re.compile(r"[1-9]\.png"), timeout=60_000)
    busy.page.get_by_label("Shown").select_option("1: 0.png")
    busy.fold_out("Another threshold")
    busy.slider("Threshold").get_by_role("slider").focus()
    busy.page.keyboard.press("End")
    busy.expect_text("threshold 1.000")
    assert busy.page.locator(".xray-table td:first-child").count() < 20, "all was done before the slider moved"
    expect(busy.page.locator(".xray-table td:first-child")).to_have_count(20, timeout=120_000)
    expect(busy.page.locator(".xray-page h2").first).to_have_text("0.png")  # where the person is
    assert {row["decision"] for row in busy.table()} == {"NORMAL"}


def test_a_model_that_cannot_be_loaded_is_named_on_the_page(browser, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.keras").open("ab") as file:
        file.write(b"x")
    arguments = ["--model", str(tmp_path / "damaged")]
    with served(folder.parent.parent, "helpers.serve", *arguments) as url:
        page = browser.new_page()
        page.goto(url, timeout=120_000)
        expect(page.locator("body")).to_contain_text("model.keras does not fit the checksum", timeout=60_000)


def end_kernel(url: str, kernel: str) -> None:
    """As the operating system ends a process that takes too much memory."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"kernel-{kernel}.json" in file.read_text():
                os.kill(int(file.parent.name), signal.SIGKILL)


@pytest.mark.parametrize("way", ["killed", "culled"])
def test_when_the_kernel_has_ended_the_page_says_to_reload(browser, address, way):
    person = Visit(browser, address)
    kernel = person.kernel()
    if way == "killed":
        end_kernel(address, kernel)
    else:
        request = {"Cookie": "; ".join(f"{c['name']}={c['value']}" for c in person.page.context.cookies())}
        token = next(c["value"] for c in person.page.context.cookies() if c["name"] == "_xsrf")
        delete = urllib.request.Request(
            f"{address}api/kernels/{kernel}", headers=request | {"X-XSRFToken": token}, method="DELETE"
        )
        assert urllib.request.urlopen(delete, timeout=30).status == 204
    person.upload(("film.png", encoded(SICK, "PNG")))
    expect(person.page.locator(".xray-lost")).to_contain_text("reload the page", timeout=40_000)
    assert "could not be read" not in person.page.content()
    person.leave()
    Visit.all.remove(person)  # its console tells of the lost connection


def test_one_visitor_too_many_reads_a_sentence_and_no_cdn_is_asked(browser, folder, tmp_path):
    """In a copy of the clone with one place; it is taken by somebody who reads the page's head and no more."""
    clone = make_clone(tmp_path / "clone").root
    shutil.copytree(folder, clone / "data" / "pretrained")
    room = clone / "helpers" / "serve" / "server.py"
    room.write_text(room.read_text().replace(f"MOST_VISITORS = {server.MOST_VISITORS} ", "MOST_VISITORS = 1 "))
    with served(clone, "helpers.serve") as url, urllib.request.urlopen(url, timeout=120):
        page, asked = browser.new_page(), set()
        page.on("request", lambda request: asked.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", request.url)))
        assert page.goto(url, timeout=60_000).status == 503
        expect(page.locator("body")).to_contain_text("people are on this page, and it takes no more; come back later.")
        assert asked <= {url.rstrip("/"), "data:"}
        page.close()


def test_the_page_of_a_refused_name_says_what_to_do_and_asks_no_cdn(address):
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", "/", headers={"Host": "clinic.example"})
    text = connection.getresponse().read().decode()
    assert "start it with" in text
    assert "--base-url" in text
    assert set(re.findall(r"https?://[^/ ]+", text)) == {"https://example.org"}


@pytest.mark.parametrize("strip", ["", "/xray"], ids=["the path kept", "the path stripped"])
def test_behind_a_proxy_that_rewrites_the_host_below_a_path_it_works(browser, folder, strip):
    with served(
        folder.parent.parent, "helpers.serve", "--base-url", "/xray/", answers="xray/voila/api/shutdown"
    ) as url:
        port = urllib.parse.urlsplit(url).port
        with proxied(port, host=f"127.0.0.1:{port}", strip=strip) as front:
            person = Visit(browser, f"{front}/xray/")
            person.upload(("film.jpeg", encoded(SICK, "JPEG")))
            person.expect_text("Signs of pneumonia")
            person.expect_heat()
            assert person.asked <= {front, "data:", "blob:"}
            assert status(f"{url}xray") == 301  # to the path with its slash
            kernel = person.kernel()
            person.leave()
            end = time.monotonic() + 30
            while status(f"{url}xray/api/kernels/{kernel}") == 200 and time.monotonic() < end:
                time.sleep(0.5)
            assert status(f"{url}xray/api/kernels/{kernel}") == 404


def test_a_proxy_that_keeps_the_host_is_answered_when_its_address_is_told(folder):
    address = ["--base-url", "https://clinic.example/xray/"]
    with served(folder.parent.parent, "helpers.serve", *address, answers="xray/voila/api/shutdown") as url:
        kernel = f"{url}xray/api/kernels/00000000-0000-0000-0000-000000000000"  # nobody's
        assert [status(kernel, {"Host": f"{host}.example"}) for host in ("clinic", "other")] == [404, 403]


def test_a_dirty_home_changes_nothing(browser, folder, tmp_path):
    """Leftovers of Jupyter, Voila and IPython, and a foreign kernel of the same name."""
    files = {
        ".jupyter/voila.json": '{"Voila": {"base_url": "/wrong/"}, "VoilaConfiguration": {"template": "reveal"}}',
        ".jupyter/jupyter_server_config.py": "c.MappingKernelManager.default_kernel_name = 'none'",
        ".jupyter/jupyter_config.json": '{"IdentityProvider": {"token": "secret"}}',
        ".ipython/profile_default/startup/00.py": "raise SystemExit('start-up file')",
        ".local/share/jupyter/kernels/python3/kernel.json": '{"argv": ["/bin/false"], "display_name": "foreign"}',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with served(folder.parent.parent, "helpers.serve", environment={"HOME": str(tmp_path)}) as url:
        person = Visit(browser, url)
        person.upload(("film.jpeg", encoded(SICK, "JPEG")))
        person.expect_text("Signs of pneumonia")
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}.items()


def test_the_container_s_health_check_asks_for_what_is_served(address):
    (path,) = re.findall(r"http://127\.0\.0\.1:8866/([^']+)'", (config.ROOT / "Dockerfile").read_text())
    assert status(address + path) == 200


def test_while_the_model_is_loaded_the_page_says_so(browser, address):
    page, start = browser.new_page(), time.monotonic()
    page.goto(address, wait_until="commit")
    expect(page.locator("#loading_text")).to_be_visible(timeout=10_000)
    seconds = time.monotonic() - start
    shown = page.locator("#loading_text").evaluate("e => getComputedStyle(e, '::after').content")
    assert "Loading the model" in shown
    page.close(run_before_unload=True)
    assert seconds < 5  # a tenth of that on a machine that does nothing else


def test_in_jupyterlab_it_works_alike(browser, folder):
    """`make lab`, notebook 07, all cells run: a JPEG and a DICOM of 20 MB, which would exceed no server's limit."""
    options = ["--ServerApp.root_dir=.", "--allow-root", "--no-browser", "--IdentityProvider.token="]
    with served(folder.parent.parent, "jupyterlab", *options, answers="api") as url:
        lab = Visit(browser, f"{url}lab/tree/notebooks/07_predict.ipynb", viewport={"width": 1280, "height": 1400})
        for name, content in (("film.jpeg", encoded(SICK, "JPEG")), ("large.dcm", large_dicom())):
            lab.upload((name, content))
            expect(lab.page.locator(".xray-page h2").first).to_have_text(name, timeout=60_000)
            lab.expect_text("Signs of pneumonia")
            lab.expect_heat()
        lab.key("h")
        expect(lab.viewer).to_have_attribute("data-heat", "")
        lab.key("d", "d", "m", "x")  # to JupyterLab, "d d" deletes the cell, "m" makes it text, "x" cuts it
        expect(lab.viewer).to_have_attribute("data-level", "144")
        assert [row["file"] for row in lab.table()] == ["film.jpeg", "large.dcm"]
        assert lab.asked <= {url.rstrip("/"), "data:", "blob:"}
        assert not lab.console


def test_widget_page_command_and_predictions_csv_say_the_same(browser, smoke, tmp_path):
    """The same bytes, four ways, within 1e-5."""
    table = pd.read_csv(smoke.folder / "predictions.csv").query("split == 'test'")
    chosen = table.iloc[[0, len(table) // 2, -1]]
    model_folder, files = smoke.folder / "model", [smoke.data / path for path in chosen["path"]]
    assert (
        predict.command.main(["--model", str(model_folder), "--csv", str(tmp_path / "out.csv"), *map(str, files)]) == 0
    )
    command = pd.read_csv(tmp_path / "out.csv")["probability"]
    widget = app.App(predict.Predictor.load(model_folder), {})
    for file in files:
        widget.add(file.name, file.read_bytes()).result(60)
    arguments = ["--model", str(model_folder)]
    with served(smoke.clone.root, "helpers.serve", *arguments) as url:
        visit = Visit(browser, url)
        visit.upload(*((file.name, file.read_bytes()) for file in files))
        expect(visit.page.locator(".xray-table td:first-child")).to_have_count(len(files), timeout=60_000)
        page = visit.table()
    for rows in (widget.rows(), page):
        found = [float(row["probability"]) for row in rows]
        np.testing.assert_allclose(found, chosen["probability"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(command, chosen["probability"], rtol=0, atol=1e-5)


def test_nothing_was_asked_of_another_host_and_the_console_is_quiet(visit, address):
    """Last of all: over everything that the visits to the page above did."""
    visits = [one for one in Visit.all if one.address == address]
    assert visit in visits
    assert not set().union(*(one.asked for one in visits)) - {address.rstrip("/"), "data:", "blob:"}
    assert not [line for one in visits for line in one.console]
