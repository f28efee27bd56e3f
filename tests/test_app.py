"""The prediction page: samples, uploads, what it answers to files that are none, and its still picture."""

from __future__ import annotations

import base64
import datetime
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from IPython.core.formatters import format_display_data
from PIL import Image

from helpers import app, images, model, predict
from helpers.config import InputError, make_settings
from tests.conftest import planted_film

SICK, HEALTHY = planted_film((2, 20), 96), planted_film(None, 96)


@pytest.fixture(scope="module")
def predictor(planted_folder) -> predict.Predictor:
    return predict.Predictor.load(planted_folder)


@pytest.fixture
def samples(tmp_path) -> dict:
    Image.fromarray(HEALTHY).save(tmp_path / "healthy.png")
    Image.fromarray(SICK).save(tmp_path / "sick.png")
    return {"NORMAL 1": tmp_path / "healthy.png", "PNEUMONIA virus 1": tmp_path / "sick.png"}


@pytest.fixture
def page(predictor, samples) -> app.App:
    return app.App(predictor, samples)


def png(film: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "PNG")
    return buffer.getvalue()


def upload(page: app.App, name: str, content: bytes) -> str:
    """What ipywidgets 8 puts into FileUpload.value; the answer of the page."""
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    page.upload.value = ({**file, "last_modified": datetime.datetime.now(datetime.UTC)},)
    return page.answer.value


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def pictures(answer: str) -> list[np.ndarray]:
    sources = [attributes["src"] for attributes in Tags(answer).named("img")]
    data = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
    return [np.asarray(Image.open(io.BytesIO(one))) for one in data]


# Samples and uploads


def test_a_sample_is_shown_with_its_probability_and_heatmap(page, predictor):
    page.sample.value = "PNEUMONIA virus 1"
    answer = page.answer.value
    shown = Tags(answer)
    probability = predictor.predict(png(SICK)).probability
    assert not shown.open  # every tag is closed
    assert "PNEUMONIA virus 1" in shown.text
    assert f"Signs of pneumonia: probability {probability:.3f}, threshold 0.400" in shown.text
    image, overlay = pictures(answer)
    assert np.array_equal(image, SICK)
    assert overlay.shape == (96, 96, 3)
    assert [attributes["alt"] for attributes in shown.named("img")] == [
        "the image",
        "where the model saw signs of pneumonia",
    ]


def test_the_verdict_and_the_scale_follow_the_probability(page, predictor):
    page.sample.value = "NORMAL 1"
    probability = predictor.predict(png(HEALTHY)).probability
    assert "No signs of pneumonia" in page.answer.value
    assert f"width:{100 * probability:.1f}%" in page.answer.value
    assert "left:40.0%" in page.answer.value
    label = next(a["aria-label"] for a in Tags(page.answer.value).named("div") if a.get("role") == "img")
    assert f"probability {probability:.3f} on a scale from 0 to 1, threshold 0.400" in label


def test_every_choice_gives_a_new_answer_and_none_leaves_the_last(page):
    page.sample.value = "NORMAL 1"
    first = page.answer.value
    page.sample.value = "PNEUMONIA virus 1"
    second = page.answer.value
    assert first != second
    page.sample.value = "choose a sample"
    assert page.answer.value == second


def test_an_upload_is_answered_as_the_file_on_disk(page, predictor):
    answer = upload(page, "my film.png", png(SICK))
    assert "my film.png" in answer
    assert f"{predictor.predict(png(SICK)).probability:.3f}" in answer
    again = upload(page, "other.png", png(HEALTHY))
    assert "my film" not in again
    assert "No signs" in again


def test_doubts_are_listed(page):
    answer = upload(page, "tiny.png", png(np.zeros((10, 100), np.uint8)))
    assert answer.count("<li>") == 3
    assert "very small image" in answer


def test_a_text_file_with_an_image_s_name_gives_an_alert(page):
    page.sample.value = "NORMAL 1"
    answer = upload(page, "letter.jpg", b"Dear doctor,")
    (alert,) = [attributes for attributes in Tags(answer).named("p") if attributes.get("role") == "alert"]
    assert alert
    assert "letter.jpg cannot be read as an image" in answer
    assert not pictures(answer)
    assert "Traceback" not in answer
    page.opacity.value = 0.9  # nothing to redraw: the alert stays
    assert page.answer.value == answer
    assert "Signs of pneumonia" in upload(page, "film.png", png(SICK))  # and the page goes on


@pytest.mark.parametrize("content", [png(SICK), b"no image"])
def test_a_file_name_is_text_and_never_markup(page, content):
    name = '<img src=x onerror="alert(1)"><script>alert(2)</script>.png'
    answer = upload(page, name, content)
    shown = Tags(answer)
    assert name in shown.text
    assert html.escape(name) in answer
    assert not shown.named("script")
    assert all(set(attributes) == {"src", "alt", "style"} for attributes in shown.named("img"))
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in shown.named("img"))


def test_the_opacity_redraws_the_heatmap_only(page):
    page.opacity.value = 0.8
    assert page.shown is None  # nothing chosen yet
    page.sample.value = "PNEUMONIA virus 1"
    strong = pictures(page.answer.value)
    page.opacity.value = 0
    plain = pictures(page.answer.value)
    assert np.array_equal(plain[0], strong[0])
    assert np.array_equal(plain[1], np.repeat(SICK[..., None], 3, axis=-1))
    difference = np.abs(strong[1].astype(int) - plain[1]).max(axis=-1)
    assert difference[6:36, 60:90].mean() > 20  # on the spot
    assert difference[50:].mean() < 1


def test_large_pictures_are_reduced_to_what_is_shown(page):
    film = np.random.default_rng(0).integers(0, 256, (800, 1000)).astype(np.uint8)
    for picture in pictures(upload(page, "large.png", png(film))):
        assert picture.shape[0] <= 640
        assert picture.shape[1] / picture.shape[0] == pytest.approx(1000 / 800, abs=0.01)


# The page in a notebook and in a report


def test_the_page_is_a_widget_and_a_still_picture(page, monkeypatch):
    displayed = []
    monkeypatch.setattr(app, "display", lambda bundle, raw: displayed.append((bundle, raw)))
    page.show()
    ((bundle, raw),) = displayed
    assert raw
    assert set(bundle["application/vnd.jupyter.widget-view+json"]) >= {"model_id", "version_major"}
    still = bundle["text/html"]
    assert "A still picture" in still
    assert "PNEUMONIA virus 1" in still  # the last sample: one that the model finds
    assert len(pictures(still)) == 2
    assert not Tags(still).open
    assert page.answer.value.startswith("<p>Choose a sample")  # the live page waits


def test_without_samples_the_page_opens_all_the_same(predictor, monkeypatch):
    displayed = []
    monkeypatch.setattr(app, "display", lambda bundle, raw: displayed.append(bundle))
    app.App(predictor, {}).show()
    assert "application/vnd.jupyter.widget-view+json" in displayed[0]
    assert not pictures(displayed[0]["text/html"])


def test_the_widgets_can_be_sent_to_a_browser(page):
    for widget in (page.sample, page.upload, page.opacity, page.answer):
        data, _ = format_display_data(widget)
        assert "application/vnd.jupyter.widget-view+json" in data
    assert page.upload.accept == ".jpeg,.jpg,.png,.dcm"
    assert page.sample.options[0] == "choose a sample"


# Which model, which samples, what it is worth


def test_the_named_model_comes_first_then_the_run_s_then_the_pretrained(tmp_path, monkeypatch):
    named, run, pretrained = (tmp_path / name for name in ("named", "run", "pretrained"))
    monkeypatch.setattr(predict, "PRETRAINED", pretrained)

    def place(folder):
        folder.mkdir(parents=True)
        (folder / "model.json").touch()

    settings = make_settings("smoke")
    with pytest.raises(InputError, match=r"no model in .*run.model or .*pretrained: run the notebooks 01 to 05 first"):
        app.find_model(settings, run)
    place(pretrained)
    assert app.find_model(settings, run) == pretrained
    place(run / "model")
    assert app.find_model(settings, run) == run / "model"
    chosen = make_settings("smoke", {"model": str(named)})
    with pytest.raises(InputError, match=r"no model in .*named"):
        app.find_model(chosen, run)  # never another one in its place
    place(named)
    assert app.find_model(chosen, run) == named


def write(folder, names) -> None:
    folder.mkdir(parents=True)
    for k, name in enumerate(names):
        Image.fromarray(planted_film(None, 32, k)).save(folder / name)


def test_samples_are_picked_evenly_from_both_classes_of_test(tmp_path):
    write(tmp_path / "test" / "NORMAL", [f"IM-{k:04d}-0001.png" for k in range(8)])
    write(tmp_path / "test" / "PNEUMONIA", ["person1_virus_1.png", "person2_bacteria_2.png", "x.png"])
    write(tmp_path / "train" / "NORMAL", ["IM-9999-0001.png"])
    found = app.find_samples(make_settings("chest_xray", {"data": str(tmp_path)}))
    assert {title: file.name for title, file in found.items()} == {
        "NORMAL 1": "IM-0000-0001.png",
        "NORMAL 2": "IM-0002-0001.png",
        "NORMAL 3": "IM-0004-0001.png",
        "NORMAL 4": "IM-0006-0001.png",
        "PNEUMONIA virus 1": "person1_virus_1.png",
        "PNEUMONIA bacteria 2": "person2_bacteria_2.png",
        "PNEUMONIA 3": "x.png",
    }


@pytest.mark.parametrize("layout", ["test/normal", "NORMAL", "train/NORMAL", "Test/Normal"])
def test_samples_are_found_in_every_layout_that_can_be_evaluated(tmp_path, layout):
    write(tmp_path / layout, ["a.png", "b.png"])
    found = app.find_samples(make_settings("chest_xray", {"data": str(tmp_path)}), 1)
    assert [file.name for file in found.values()] == ["a.png"]


def test_samples_can_be_read(tmp_path):
    write(tmp_path / "test" / "NORMAL", [f"{k}.png" for k in range(6)])
    for k in (0, 3, 4, 5):
        (tmp_path / "test" / "NORMAL" / f"{k}.png").write_bytes(b"broken")
    (tmp_path / "test" / "NORMAL" / ".hidden.png").write_bytes(b"broken")
    found = app.find_samples(make_settings("chest_xray", {"data": str(tmp_path)}), 3)
    assert [file.name for file in found.values()] == ["1.png", "2.png"]
    for file in found.values():
        assert images.read_image(file).shape == (32, 32)


def card(**changes) -> dict:
    measured = {"sensitivity": {"value": 0.968}, "specificity": {"value": 0.755}, "n": 314}
    return {"threshold": 0.123456, "phantoms": False, "metrics": {"test": measured | changes}}


def test_what_a_model_is_worth_is_said_in_words():
    text = app.worth(card())
    assert "threshold of 0.123" in text
    assert "97 of 100 pneumonias" in text
    assert re.search(r"76 of 100 healthy|75 of 100 healthy", text)
    assert "on 314 test images" in text
    assert "children" in text
    assert "Not a medical device" in text
    assert "phantoms drawn by code" in app.worth(card() | {"phantoms": True})


def test_what_was_not_measured_is_not_claimed(planted_folder):
    assert app.worth(model.read_card(planted_folder)) == "Nothing has been measured at this model's threshold."
    assert "an unknown share" in app.worth(card(specificity={"value": None}))
    assert "0 of 100" not in app.worth(card(specificity={"value": None}))
