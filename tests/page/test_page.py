"""The page in a browser: `python -m helpers.serve` in a copy of the clone, visited by Chromium, with no network."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import os
import re
import shutil
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
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from helpers import model, predict
from helpers.page import app, upload
from tests.conftest import dicom, make_clone, planted_film

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not CHROMIUM and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("there is no Chromium on this machine to open the page with", allow_module_level=True)


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
    known = {"metrics": {"test": {"n": 77} | rates}, "operating_points": points, "uncertain": [0.35, 0.45]}
    model.save(planted, target, card | known)
    return target


@contextlib.contextmanager
def served(clone: Path, module: str, *arguments: str, answers: str) -> Iterator[str]:
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
            cwd=clone, stdout=file, stderr=subprocess.STDOUT,
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
    with served(folder.parent.parent, "helpers.serve", answers="voila/api/shutdown") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
        self.page.on("console", lambda m: self.console.append(m.text) if m.type == "error" else None)
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

    def upload(self, *files: tuple[str, bytes]) -> None:
        payload = [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
        self.page.locator(".xray-upload input").set_input_files(payload)

    def expect_text(self, text: str | re.Pattern, seconds: float = 20) -> None:
        expect(self.page.locator(".xray-page")).to_contain_text(text, timeout=1000 * seconds)

    def slider(self, name: str):
        return self.page.locator(".widget-hslider", has_text=name)

    def kernel(self) -> str:
        """The id of the kernel behind the tab."""
        return json.loads(self.page.locator("#jupyter-config-data").text_content())["kernelId"]

    def table(self) -> list[dict]:
        """The CSV file, downloaded and read back."""
        with self.page.expect_download() as waiting:
            self.page.get_by_text("Download as CSV").click()
        with open(waiting.value.path(), encoding="utf-8", newline="") as file:  # noqa: PTH123
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def visit(browser, address) -> Visit:
    return Visit(browser, address)


def test_the_empty_page_says_what_it_is_for_and_which_model_it_uses(visit):
    visit.expect_text("Choose a sample, or upload JPEG, PNG or DICOM files.")
    visit.expect_text("Model: data/pretrained")
    visit.expect_text("Not a medical device")
    visit.expect_text(
        "90 of 100 pneumonias (sensitivity) and raised no alarm for 80 of 100 healthy images (specificity), on 77 test"
    )
    assert not visit.page.locator(".xray-pictures").count()
    expect(visit.slider("Threshold")).to_be_hidden()  # nothing to decide yet


def test_of_the_notebook_only_the_tool_is_on_the_page(visit):
    assert visit.page.get_by_role("heading", level=1).all_inner_texts() == ["Pneumonia on chest X-rays: try the model"]
    assert not visit.page.get_by_role("heading", level=2).count()
    assert visit.page.locator(".xray-upload").bounding_box()["y"] < 400  # seen without scrolling


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
    expect(visit.page.locator(".xray-page h4").first).to_have_text(name, timeout=20_000)
    visit.expect_text(f"Signs of pneumonia: probability {float(row['probability']):.3f}")
    expect(visit.page.locator("img.xray-heat")).to_be_visible()
    shown = visit.table()[-1]
    assert shown["file"] == name
    assert abs(float(shown["probability"]) - float(row["probability"])) < 1e-5
    assert PATIENT not in visit.page.content()


def test_a_text_file_with_an_image_s_name_is_refused_in_words(visit):
    name = '<img src=x onerror="document.title=1">.jpg'
    visit.upload((name, b"Dear doctor,"))
    visit.expect_text("This file cannot be used:")
    visit.expect_text(name)
    assert not visit.page.locator(".xray-pictures").count()
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
    visit.expect_text("Below the threshold, not called pneumonia")
    rows = visit.table()[before:]
    assert [(row["file"], row["decision"]) for row in rows] == [("one.png", "PNEUMONIA"), ("two.png", "NORMAL")]


def test_the_threshold_moves_decisions_by_keyboard_and_predicts_nothing_anew(visit):
    visit.upload(("edge.png", encoded(SICK, "PNG")))
    visit.expect_text("edge.png")
    before = visit.table()[-1]
    assert before["decision"] == "PNEUMONIA"
    expect(visit.slider("Threshold")).to_be_visible()
    visit.slider("Threshold").get_by_role("slider").focus()
    visit.page.keyboard.press("End")
    visit.expect_text("threshold 1.000")
    visit.expect_text(
        "At a threshold of 1.00 it found 0 of 100 pneumonias (sensitivity) and raised no alarm for 100 of 100"
    )
    after = visit.table()[-1]
    assert (after["decision"], after["probability"]) == ("NORMAL", before["probability"])
    assert after["seconds"] == before["seconds"]
    visit.page.get_by_role("button", name="The model's own threshold").click()
    visit.expect_text("threshold 0.400")


def test_opacity_and_method_change_the_heatmap(visit):
    visit.slider("Opacity").get_by_role("slider").focus()
    visit.page.keyboard.press("Home")
    expect(visit.page.locator("img.xray-heat")).to_have_css("opacity", "0")
    visit.page.get_by_label("Heatmap").select_option("LayerCAM")
    visit.expect_text("LayerCAM: what spoke for pneumonia")


def test_a_sample_is_there_without_a_dataset(visit):
    visit.page.get_by_label("Sample").select_option("phantom NORMAL 1")
    expect(visit.page.locator(".xray-page h4").first).to_have_text("phantom NORMAL 1", timeout=20_000)


def test_two_people_do_not_see_each_other_s_images(browser, address, visit):
    visit.upload(("secret.png", encoded(SICK, "PNG")))
    visit.expect_text("secret.png")
    other = Visit(browser, address)
    assert "secret.png" not in other.page.content()
    other.upload(("mine.png", encoded(HEALTHY, "PNG")))
    other.expect_text("mine.png")
    assert [row["file"] for row in other.table()] == ["mine.png"]
    assert "mine.png" not in visit.page.content()


def test_a_phone_s_width_is_enough(browser, address):
    phone = Visit(browser, address, viewport={"width": 360, "height": 740})
    phone.upload(("film.png", encoded(SICK, "PNG")))
    phone.expect_text("Signs of pneumonia")
    expect(phone.page.locator("img.xray-heat")).to_be_visible()
    box = phone.page.locator("img.xray-heat").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert phone.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    header = phone.page.locator(".xray-table th").nth(1).bounding_box()
    assert header["height"] < 40, "a word is broken over several lines"
    for control in (".xray-upload", ".widget-hslider"):
        assert phone.page.locator(control).first.bounding_box()["width"] <= 360


def test_closing_the_page_ends_its_kernel(browser, address):
    """Not minutes later, when idle kernels are culled."""
    person = Visit(browser, address)
    kernel = person.kernel()
    assert status(f"{address}api/kernels/{kernel}") == 200
    person.page.close(run_before_unload=True)
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


def test_the_page_answers_while_twenty_images_are_predicted(browser, address):
    busy = Visit(browser, address)
    large = encoded(SICK.repeat(50, axis=0).repeat(50, axis=1), "PNG")  # 23 megapixels: soon sent, slow to decode
    busy.upload(*((f"{number}.png", large) for number in range(20)))
    expect(busy.page.locator(".xray-page h4").first).to_have_text(re.compile(r"[1-9]\.png"), timeout=60_000)
    busy.page.get_by_label("Shown").select_option("1: 0.png")
    busy.slider("Threshold").get_by_role("slider").focus()
    busy.page.keyboard.press("End")
    busy.expect_text("threshold 1.000")
    assert busy.page.locator(".xray-table td:first-child").count() < 20, "all was done before the slider moved"
    expect(busy.page.locator(".xray-table td:first-child")).to_have_count(20, timeout=120_000)
    expect(busy.page.locator(".xray-page h4").first).to_have_text("0.png")  # where the person is
    assert {row["decision"] for row in busy.table()} == {"NORMAL"}


def test_a_model_that_cannot_be_loaded_is_named_on_the_page(browser, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.keras").open("ab") as file:
        file.write(b"x")
    arguments = ["--model", str(tmp_path / "damaged")]
    with served(folder.parent.parent, "helpers.serve", *arguments, answers="voila/api/shutdown") as url:
        page = browser.new_page()
        page.goto(url, timeout=120_000)
        expect(page.locator("body")).to_contain_text("model.keras does not fit the checksum", timeout=60_000)


def test_in_jupyterlab_it_works_alike(browser, folder):
    """`make lab`, notebook 07, all cells run: a JPEG and a DICOM of 20 MB, which would exceed no server's limit."""
    options = ["--ServerApp.root_dir=.", "--allow-root", "--no-browser", "--IdentityProvider.token="]
    with served(folder.parent.parent, "jupyterlab", *options, answers="api") as url:
        lab = Visit(browser, f"{url}lab/tree/notebooks/07_predict.ipynb", viewport={"width": 1280, "height": 1400})
        for name, content in (("film.jpeg", encoded(SICK, "JPEG")), ("large.dcm", large_dicom())):
            lab.upload((name, content))
            expect(lab.page.locator(".xray-page h4").first).to_have_text(name, timeout=60_000)
            lab.expect_text("Signs of pneumonia")
            expect(lab.page.locator("img.xray-heat")).to_be_visible()
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
    with served(smoke.clone.root, "helpers.serve", *arguments, answers="voila/api/shutdown") as url:
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
