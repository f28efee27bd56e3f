"""The prediction page: samples, uploads, what it answers to files that are none, and its still picture."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import re
import threading
from concurrent.futures import Future
from html.parser import HTMLParser

import markupsafe
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import format_display_data
from PIL import Image

from helpers import config, images, model, phantom, predict
from helpers.config import InputError, make_settings
from helpers.page import app, find_model, find_samples, session
from helpers.page.answer import (
    Answer,
    describe_frequency,
    describe_model,
    describe_operating_point,
    describe_prevalence,
)
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


@pytest.fixture
def of_children(planted, planted_folder) -> app.App:
    """The page of a model that is not of phantoms."""
    return app.App(predict.Predictor(planted, model.read_card(planted_folder) | {"phantoms": False}), {})


def png(film: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "PNG")
    return buffer.getvalue()


def settled(page: app.App) -> app.App:
    """The page when all that was asked of it is done."""
    page.worker.submit(lambda: None).result(60)
    return page


def shown(page: app.App) -> str:
    return settled(page).answer.value


def choose(page: app.App, title: str, reading: str = "") -> str:
    """Choose a sample by its true label and read it, as the person does; what the page shows then."""
    page.choose(page.order.index(title)).result(60)
    settled(page)
    button = {"PNEUMONIA": 0, "NORMAL": 1, "": 2}[reading]
    page.guesses[button].click()
    return shown(page)


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def heat(page: app.App) -> np.ndarray:
    """The heatmap in the viewer, uint8 (size, size)."""
    values = np.frombuffer(settled(page).viewer.heat, np.uint8)
    return values.reshape(round(len(values) ** 0.5), -1)


def upload(page: app.App, name: str, content: bytes) -> str:
    """Send a file as the browser does, in two pieces; what the page shows then."""
    half = len(content) // 2
    for start, piece in ((0, content[:half]), (half, content[half:])):
        page.upload._on_piece(page.upload, {"name": name, "start": start, "last": start == half}, [memoryview(piece)])
    return shown(page)


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
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def pictures(answer: str) -> list[np.ndarray]:
    sources = [attributes["src"] for attributes in Tags(answer).named("img")]
    return [picture(base64.b64decode(source.removeprefix("data:image/png;base64,"))) for source in sources]


# Samples and uploads


def test_a_sample_is_shown_with_its_probability_and_heatmap(page, predictor):
    found = Tags(choose(page, "PNEUMONIA virus 1"))
    probability = predictor.predict(png(SICK)).probability
    assert not found.open  # every tag is closed
    assert f"Signs of pneumonia: probability {probability:.3f}, threshold 0.400" in found.text
    assert np.array_equal(picture(page.viewer.picture), SICK)
    assert picture(page.viewer.seen).shape == heat(page).shape
    size = len(heat(page))
    spot = heat(page)[size // 16 : size // 3, 5 * size // 8 : 15 * size // 16]
    assert spot.mean() > 5 * heat(page)[5 * size // 8 :].mean()


def test_a_sample_s_answer_and_label_come_after_the_reader_s(page):
    page.choose(page.order.index("NORMAL 1")).result(60)
    before = shown(page)
    assert "What do you see?" in before
    assert "probability" not in before + page.table.value.replace(">probability<", "")
    assert "NORMAL" not in before + page.table.value
    assert page.viewer.hidden
    assert not page.viewer.report
    assert page.guess.layout.display is None
    page.guesses[0].click()
    after = Tags(shown(page)).text
    assert "Below the threshold" in after
    assert "True label: NORMAL 1Your reading: PNEUMONIA" in after
    assert not page.viewer.hidden
    assert page.guess.layout.display == "none"
    (row,) = csv_rows(page)
    assert (row["own label"], row["true label"], row["decision"]) == ("PNEUMONIA", "NORMAL 1", "NORMAL")


def test_thumbnails_are_as_many_as_samples_and_tell_no_label(page, samples):
    assert sorted(page.order) == sorted(samples)
    assert len(page.gallery.thumbnails) == 2
    assert all(max(picture(one).shape) <= 112 for one in page.gallery.thumbnails)


def test_the_verdict_and_the_scale_follow_the_probability(page, predictor):
    answer, probability = choose(page, "NORMAL 1"), predictor.predict(png(HEALTHY)).probability
    assert "Below the threshold" in answer
    assert f"left:{100 * probability:.1f}%" in answer
    assert "left:40.0%" in answer
    label = next(a["aria-label"] for a in Tags(answer).named("div") if a.get("role") == "img")
    assert f"probability {probability:.3f} on a scale from 0 to 1, threshold 0.400" in label


def test_every_choice_gives_a_new_answer_and_none_leaves_the_last(page):
    first, second = choose(page, "NORMAL 1"), choose(page, "PNEUMONIA virus 1")
    assert first != second
    page.chosen.index = 0  # the one before
    assert shown(page) == first


def test_an_upload_is_answered_as_the_file_on_disk(page, predictor):
    answer = upload(page, "my film.png", png(SICK))
    assert "my film.png" in answer
    assert f"{predictor.predict(png(SICK)).probability:.3f}" in answer
    again = upload(page, "other.png", png(HEALTHY))
    assert "my film" not in again
    assert "Below the threshold" in again


def test_an_upload_out_of_order_or_too_large_is_refused(page, monkeypatch):
    sent = []
    monkeypatch.setattr(page.upload, "send", sent.append)
    page.upload._on_piece(page.upload, {"name": "a.png", "start": 0, "last": False}, [b"1234"])
    page.upload._on_piece(page.upload, {"name": "a.png", "start": 9, "last": True}, [b"5678"])
    assert sent == [{"taken": True}, {"refused": "The upload was interrupted; please choose the file again."}]
    large = bytes(2**20)
    for piece in range(51):
        page.upload._on_piece(page.upload, {"name": "b.png", "start": piece * 2**20, "last": False}, [large])
    assert "refused" in sent[-1]
    assert not page.upload._pieces
    assert not settled(page).answers


def test_no_second_file_is_taken_while_one_is_looked_at(page, monkeypatch):
    """So that memory holds one, however many are sent."""
    sent, done = [], Future()
    monkeypatch.setattr(page.upload, "send", sent.append)
    monkeypatch.setattr(page.upload, "_on_file", lambda *_: done)
    page.upload._on_piece(page.upload, {"name": "a.png", "start": 0, "last": True}, [b"1234"])
    assert sent == [{"received": True}], "the next file is not asked for yet"
    sent.clear()
    page.upload._on_piece(page.upload, {"name": "b.png", "start": 0, "last": False}, [b"1234"])
    assert "refused" in sent.pop()
    assert not page.upload._pieces
    done.set_result(None)
    assert sent.pop() == {"taken": True}
    page.upload._on_piece(page.upload, {"name": "b.png", "start": 0, "last": False}, [b"1234"])
    assert sent == [{"taken": True}]


def test_doubts_are_a_banner_above_the_answer(page):
    answer = upload(page, "tiny.png", png(np.zeros((10, 100), np.uint8)))
    assert answer.count("<li>") == 3
    assert answer.index("very small image") < answer.index("probability")
    assert "role='alert'" in answer


def test_a_text_file_with_an_image_s_name_gives_an_alert(page):
    upload(page, "film.png", png(SICK))
    answer = upload(page, "letter.jpg", b"Dear doctor,")
    (alert,) = [attributes for attributes in Tags(answer).named("div") if attributes.get("role") == "alert"]
    assert alert
    assert "letter.jpg" in answer
    assert "this file cannot be read as an image" in answer
    assert not page.viewer.picture + page.viewer.heat
    assert "Traceback" not in answer
    assert "Signs of pneumonia" in upload(page, "film.png", png(SICK))  # and the page goes on


def test_an_error_of_ours_is_shown_and_the_page_goes_on(page, monkeypatch):
    def broken(*_):
        raise RuntimeError("<b>no memory</b>")

    with monkeypatch.context() as patch:
        patch.setattr(page.predictor, "predict_decoded", broken)
        upload(page, "film.png", png(SICK))
    assert "&lt;b&gt;no memory" in page.status.value
    assert "Signs of pneumonia" in upload(page, "film.png", png(SICK))
    assert not page.status.value


@pytest.mark.parametrize("content", [png(SICK), b"no image"])
def test_a_file_name_is_text_and_never_markup(page, content):
    name = '<img src=x onerror="alert(1)"><script>alert(2)</script>.png'
    answer = upload(page, name, content)
    found = Tags(answer + page.table.value)
    assert found.text.count(name) == 2
    assert str(markupsafe.escape(name)) in answer
    assert not found.named("script")


def test_another_method_explains_the_same_prediction(page):
    choose(page, "PNEUMONIA virus 1")
    before = heat(page)
    page.viewer.method = "Grad-CAM++"
    assert len(settled(page).answers) == 1
    assert set(page.answers[0].heat) == {"Grad-CAM", "Grad-CAM++"}
    page.viewer.method = "Grad-CAM"
    assert np.array_equal(heat(page), before)


def test_large_pictures_are_reduced_to_what_a_screen_shows(page):
    film = np.random.default_rng(0).integers(0, 256, (1600, 2000)).astype(np.uint8)
    upload(page, "large.png", png(film))
    kept = picture(page.viewer.picture)
    assert max(kept.shape) == 1024
    assert kept.shape[1] / kept.shape[0] == pytest.approx(2000 / 1600, abs=0.01)


# The threshold, the uncertain range, the session


def csv_rows(page: app.App) -> list[dict]:
    link = next(a["href"] for a in Tags(settled(page).table.value).named("a"))
    text = base64.b64decode(link.removeprefix("data:text/csv;charset=utf-8;base64,")).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text), delimiter=text[4]))


def test_the_session_is_a_table_with_a_csv_of_the_same(page, predictor):
    assert not page.table.value
    upload(page, "sick.png", png(SICK))
    upload(page, "letter.jpg", b"Dear doctor,")
    first, second = csv_rows(page)
    assert float(first["probability"]) == pytest.approx(predictor.predict(png(SICK)).probability, abs=1e-8)
    assert (first["file"], first["decision"], first["threshold"], first["error"]) == (
        "sick.png",
        "PNEUMONIA",
        "0.4",
        "",
    )
    assert (second["probability"], second["decision"]) == ("", "")
    assert "cannot be read" in second["error"]


def test_the_threshold_moves_decisions_and_predicts_nothing(page, monkeypatch):
    probability = float(upload(page, "sick.png", png(SICK)) and csv_rows(page)[0]["probability"])
    monkeypatch.setattr(page.predictor, "predict_decoded", None)
    page.threshold.value = min(1, probability + 0.002)
    assert csv_rows(page)[0]["decision"] == "NORMAL"
    assert f"threshold {page.threshold.value:.3f}" in shown(page)
    assert "Nothing has been measured at this threshold" in page.meaning.value
    page.reset.click()
    assert csv_rows(page)[0]["decision"] == "PNEUMONIA"


def test_at_a_moved_threshold_the_nearest_measured_point_is_told():
    points = {"threshold": [0.0, 0.5, 1.0], "sensitivity": [1.0, 0.7, 0.0], "specificity": [0.0, 0.6, 1.0]}
    text = describe_operating_point({"operating_points": points} | card(), 0.6)
    assert (
        "At a threshold of 0.50 it found 70 of 100 images with pneumonia. It gave 40 of 100 normal images a false "
        "alarm" in text
    )
    assert "on 314 test images" in text
    assert "A threshold picked by these numbers is fitted to the test images" in text


def test_at_the_own_threshold_it_is_told_how_often_certainty_was_right():
    text = describe_operating_point({"certain": {"n": 90, "right": 81}} | card(), card()["threshold"])
    assert (
        "on 314 test images. These rates use the threshold alone. 224 of the images lie in the uncertain range. "
        "Of the answers to the other 90, 81 were right."
    ) in text
    assert "fitted to the test images" not in text


def test_an_outlier_gets_no_decision_at_any_threshold(page, monkeypatch):
    predicted = page.predictor.predict_decoded
    monkeypatch.setattr(
        page.predictor,
        "predict_decoded",
        lambda d: (dataclasses.replace(p, out_of_distribution=True) for p in predicted(d)),
    )
    assert "Not like the images this model was made for" in upload(page, "cat.png", png(SICK))
    for threshold in (0.4, 0.01):
        page.threshold.value = threshold
        assert csv_rows(page)[0]["decision"] == "not for this model"


def test_an_upside_down_film_is_said_to_be_so(page, monkeypatch):
    predicted, turned = (
        page.predictor.predict_decoded,
        {"out_of_distribution": True, "warnings": (predict.UPSIDE_DOWN,)},
    )
    monkeypatch.setattr(
        page.predictor, "predict_decoded", lambda d: (dataclasses.replace(p, **turned) for p in predicted(d))
    )
    said = upload(page, "turned.png", png(SICK))
    assert "Upside down, as it seems" in said
    assert "turn the image and try again" in said
    assert "Not like the images" not in said


@pytest.mark.parametrize("warnings", [("strange", predict.UNCERTAIN), (predict.FRAMING,), (predict.UNCERTAIN,), ()])
def test_the_csv_has_the_warnings_of_the_command(warnings):
    strange, uncertain = "strange" in warnings, len(warnings) > 0
    said = predict.Prediction(0.5, "PNEUMONIA", 0.4, strange, uncertain, warnings, np.zeros((8, 8), np.uint8))
    (row,) = session.rows([Answer("a.png", prediction=said)], {"threshold": 0.4, "phantoms": True}, 0.4)
    assert row["warnings"] == "; ".join(warnings)
    (row,) = session.rows([Answer("a.png", prediction=said)], {"threshold": 0.4, "phantoms": True}, 0.3)
    assert predict.UNCERTAIN not in row["warnings"], "the range belongs to the model's own threshold"


def test_the_page_is_uncertain_in_the_range_at_the_own_threshold_only(planted, planted_folder):
    stored = model.read_card(planted_folder)
    probability = predict.Predictor.load(planted_folder).predict(png(SICK)).probability
    page = app.App(predict.Predictor(planted, stored | {"uncertain": [0.3, probability]}), {})
    answer = upload(page, "sick.png", png(SICK))
    assert "Uncertain: needs a reader" in answer
    assert "xray-band" in answer
    assert f"uncertain from 0.300 to {probability:.3f}" in answer
    (row,) = csv_rows(page)
    assert (row["decision"], row["warnings"], row["threshold"]) == ("uncertain", "uncertain: needs a reader", "0.4")
    page.threshold.value = 0.1
    (row,) = csv_rows(page)
    assert (row["decision"], row["warnings"], row["threshold"]) == ("PNEUMONIA", "", "0.1")
    assert "xray-band" not in shown(page)
    assert "The uncertain range belongs to the model's own threshold and is not used here" in html.unescape(shown(page))


def test_who_goes_back_to_an_image_stays_there_while_others_are_predicted(page):
    upload(page, "first.png", png(SICK))
    upload(page, "second.png", png(HEALTHY))
    hold = threading.Event()
    page.worker.submit(hold.wait)
    for name in ("third.png", "fourth.png"):
        page.add(name, png(HEALTHY))
    assert "Looking at 2 images" in page.status.value
    page.chosen.index = 0
    page.threshold.value = 0.999
    assert [row["decision"] for row in page.rows()] == ["NORMAL", "NORMAL"]  # the page answers meanwhile
    hold.set()
    assert "first.png" in shown(page)
    assert [row["file"] for row in csv_rows(page)] == [f"{name}.png" for name in ("first", "second", "third", "fourth")]
    assert not page.status.value
    assert "fifth.png" in upload(page, "fifth.png", png(HEALTHY))  # what is asked for later is shown


def test_one_image_s_answer_never_stands_over_another_s_picture(page, monkeypatch):
    upload(page, "sick.png", png(SICK))
    upload(page, "dark.png", png(SICK // 2))
    sick, _ = page.answers
    page.viewer.method = "Grad-CAM++"
    settled(page)
    monkeypatch.setattr(page.predictor, "heatmap", None)  # the worker can add nothing
    page.chosen.value = sick
    assert "sick.png" in page.answer.value
    assert np.array_equal(picture(page.viewer.picture), SICK)
    assert not page.viewer.heat


def test_a_heatmap_is_of_the_method_it_is_kept_under(page, monkeypatch):
    """The person changes the method while the heatmap is computed."""
    heatmap, asked = page.predictor.heatmap, []

    def slow(prediction, method):
        asked.append(method)
        page.viewer.method = "LayerCAM"
        return heatmap(prediction, method)

    monkeypatch.setattr(page.predictor, "heatmap", slow)
    upload(page, "sick.png", png(SICK))
    settled(page)
    settled(page)
    assert asked == ["Grad-CAM", "LayerCAM"]
    assert set(page.answers[0].heat) == {"Grad-CAM", "LayerCAM"}
    expected = np.rint(255 * heatmap(page.answers[0].prediction, "LayerCAM"))
    assert np.array_equal(heat(page), expected)


def test_before_the_first_answer_there_is_nothing_to_control(page):
    parts = (page.row, page.noted, *page.folds)
    assert {part.layout.display for part in parts} == {"none"}
    upload(page, "sick.png", png(SICK))
    assert {part.layout.display for part in parts} == {None}


def test_a_sample_can_be_chosen_again_after_an_upload(page):
    choose(page, "NORMAL 1")
    upload(page, "sick.png", png(SICK))
    choose(page, "NORMAL 1")
    number = page.order.index("NORMAL 1") + 1
    assert [answer.file for answer in page.answers] == [f"Sample {number}", "sick.png", f"Sample {number}"]


def test_drawn_samples_are_called_so_where_the_model_is_of_x_rays(planted, planted_folder):
    stored = model.read_card(planted_folder)
    for phantoms in (False, True):
        drawn = app.App(predict.Predictor(planted, stored | {"phantoms": phantoms}), {"phantom 1": png(SICK)})
        assert ("drawn by code, not X-rays" in drawn.lead()) is not phantoms


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
    image, under = pictures(still)
    assert np.array_equal(image, SICK)
    assert under.shape == (*image.shape, 3)
    assert not Tags(still).open
    assert not page.answer.value  # the live page waits
    assert not page.answers


def test_without_samples_the_page_opens_all_the_same(predictor, monkeypatch):
    displayed = []
    monkeypatch.setattr(app, "display", lambda bundle, raw: displayed.append(bundle))
    app.App(predictor, {}).show()
    assert "application/vnd.jupyter.widget-view+json" in displayed[0]
    assert not pictures(displayed[0]["text/html"])


def test_the_widgets_can_be_sent_to_a_browser(page):
    for widget in (page.gallery, page.upload, page.viewer, page.answer):
        assert "application/vnd.jupyter.widget-view+json" in str(format_display_data(widget))
    assert page.upload.limit == 50 * 2**20


# Which model, which samples, what it is worth


def test_the_named_model_comes_first_then_the_run_s_then_the_pretrained(tmp_path, monkeypatch):
    named, run, pretrained = (tmp_path / name for name in ("named", "run", "pretrained"))
    monkeypatch.setattr(config, "PRETRAINED", pretrained)

    def place(folder):
        folder.mkdir(parents=True)
        (folder / "model.json").touch()

    settings = make_settings("smoke")
    with pytest.raises(InputError, match=r"no model in .*run.model or .*pretrained: run the notebooks 01 to 05 first"):
        find_model(settings, run)
    place(pretrained)
    assert find_model(settings, run) == pretrained
    place(run / "model")
    assert find_model(settings, run) == run / "model"
    chosen = make_settings("smoke", {"model": str(named)})
    with pytest.raises(InputError, match=r"no model in .*named"):
        find_model(chosen, run)  # never another one in its place
    place(named)
    assert find_model(chosen, run) == named
    monkeypatch.setenv("PNEUMONIA_MODEL", str(pretrained))
    assert find_model(settings, run) == pretrained
    assert find_model(chosen, run) == named


def write(folder, names) -> None:
    folder.mkdir(parents=True)
    for k, name in enumerate(names):
        Image.fromarray(planted_film(None, 32, k)).save(folder / name)


def test_samples_are_picked_evenly_from_both_classes_of_test(tmp_path):
    write(tmp_path / "test" / "NORMAL", [f"IM-{k:04d}-0001.png" for k in range(8)])
    write(tmp_path / "test" / "PNEUMONIA", ["person1_virus_1.png", "person2_bacteria_2.png", "x.png"])
    write(tmp_path / "train" / "NORMAL", ["IM-9999-0001.png"])
    found = find_samples(make_settings("chest_xray", {"data": str(tmp_path)}))
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
    found = find_samples(make_settings("chest_xray", {"data": str(tmp_path)}), 1)
    assert [file.name for file in found.values()] == ["a.png"]


def test_phantoms_in_a_folder_are_called_phantoms_too(tmp_path):
    write(tmp_path / "test" / "NORMAL", ["IM-0001-0001.png"])
    (tmp_path / phantom.RECIPE).write_text("{}")
    assert list(find_samples(make_settings("chest_xray", {"data": str(tmp_path)}))) == ["phantom NORMAL 1"]


def test_samples_of_a_run_spread_over_its_logits_the_worst_among_them(tmp_path):
    answers = [0.02, 0.98, 0.01, 0.5, 0.6, 0.99, 0.985, 0.4]  # nearest to equal steps: 0.01, 0.18, 0.82, 0.99
    for label in ("NORMAL", "PNEUMONIA"):
        write(tmp_path / "test" / label, [f"{k}.png" for k in range(8)])
    rows = [(f"test/{label}/{k}.png", p) for label in ("NORMAL", "PNEUMONIA") for k, p in enumerate(answers)]
    predictions = pd.DataFrame(rows, columns=["path", "probability"])
    found = find_samples(make_settings("chest_xray", {"data": str(tmp_path)}), 4, predictions)
    picked = [f"{file.parent.name} {file.stem}" for file in found.values()]
    assert picked == [f"{label} {k}" for label in ("NORMAL", "PNEUMONIA") for k in (2, 4, 5, 7)]


def test_the_page_s_dataset_is_named_by_the_environment(tmp_path, monkeypatch):
    write(tmp_path / "own" / "NORMAL", ["a.png"])
    monkeypatch.setenv("PNEUMONIA_DATA", str(tmp_path / "own"))
    (file,) = find_samples(make_settings("demo")).values()
    assert file == tmp_path / "own" / "NORMAL" / "a.png"


def test_samples_can_be_read(tmp_path):
    write(tmp_path / "test" / "NORMAL", [f"{k}.png" for k in range(6)])
    for k in (0, 3, 4, 5):
        (tmp_path / "test" / "NORMAL" / f"{k}.png").write_bytes(b"broken")
    (tmp_path / "test" / "NORMAL" / ".hidden.png").write_bytes(b"broken")
    found = find_samples(make_settings("chest_xray", {"data": str(tmp_path)}), 3)
    assert [file.name for file in found.values()] == ["1.png", "2.png"]
    for file in found.values():
        assert images.read_image(file).shape == (32, 32)


def test_without_a_dataset_phantoms_are_drawn_and_nothing_is_written(tmp_path):
    nowhere = tmp_path / "nowhere"
    found = find_samples(make_settings("chest_xray", {"data": str(nowhere)}), 2)
    assert list(found) == [
        "phantom NORMAL 1", "phantom NORMAL 2", "phantom PNEUMONIA bacteria 1", "phantom PNEUMONIA virus 2",
    ]  # fmt: skip
    assert all(min(images.read_image(source).shape) > 200 for source in found.values())
    assert not nowhere.exists()


def card(**changes) -> dict:
    measured = {"sensitivity": {"value": 0.968}, "specificity": {"value": 0.755}, "n": 314}
    return {"threshold": 0.123456, "phantoms": False, "metrics": {"test": measured | changes}}


def test_what_a_model_is_worth_is_said_in_words():
    text = describe_model(card())
    assert "threshold of 0.123" in text
    assert "97 of 100 images with pneumonia" in text
    assert re.search(r"It gave (24|25) of 100 normal images a false alarm", text)
    assert "on 314 test images" in text
    assert "children" in text
    assert "Not a medical device" in text
    assert "phantoms drawn by code" in describe_model(card() | {"phantoms": True})


def test_what_was_not_measured_is_not_claimed(planted_folder):
    assert describe_model(model.read_card(planted_folder)).startswith(
        "Nothing has been measured at this model's threshold."
    )
    assert "an unknown number" in describe_model(card(specificity={"value": None}))
    assert "0 of 100" not in describe_model(card(specificity={"value": None}))


# What an answer means


def measured(n: int = 200, positives: int = 100) -> dict:
    """A card with scores 0.005, 0.015, ...: normal ones below 0.5, ill ones above."""
    thresholds = np.round(np.linspace(0, 1, 101), 2)
    sensitivity = np.where(thresholds <= 0.5, 1, 2 * (1 - thresholds))
    specificity = np.where(thresholds <= 0.5, 2 * thresholds, 1)
    points = {"threshold": thresholds, "sensitivity": sensitivity, "specificity": specificity}
    rates = {"sensitivity": {"value": 0.9}, "specificity": {"value": 0.8}}
    test = {"n": n, "prevalence": positives / n} | rates
    return {"threshold": 0.4, "metrics": {"test": test}} | {"operating_points": {k: list(v) for k, v in points.items()}}


def of_one_class() -> dict:
    card = measured(100, 100)
    card["operating_points"]["specificity"] = [None] * 101
    return card


@pytest.mark.parametrize(
    ("card", "probability", "expected"),
    [
        (measured(), 0.83, "Of the 20 test images that got from 0.8 to 0.9, 20 had pneumonia."),
        (measured(), 1.0, "Of the 20 test images that got from 0.9 to 1.0, 20 had pneumonia."),
        (measured(2000, 1000), 0.45, "Of 100 such answers on test images, 0 had pneumonia: 0 of the 200 that got from"),
        (measured(100, 50), 0.55, "Of the 30 test images that got from 0.4 to 0.7, 20 had pneumonia."),
        ({"threshold": 0.4}, 0.83, ""),
        (of_one_class(), 0.83, ""),
    ],
)
def test_what_a_number_means_is_told_in_test_images(card, probability, expected):
    found = describe_frequency(card, probability)
    assert found.startswith(expected) if expected else not found


def test_precision_follows_the_prevalence_by_bayes():
    assert describe_prevalence(measured(), 0.4, 0.5).startswith(
        "Where 50 of 100 patients have pneumonia, 82 of 100 alarms are right (precision), and 89 of 100 answers below"
    )  # 0.45 / (0.45 + 0.1), 0.4 / (0.4 + 0.05)
    assert "4 of 100 alarms are right" in describe_prevalence(measured(), 0.4, 0.01)
    assert "cannot be computed" in describe_prevalence({"threshold": 0.4}, 0.4, 0.5)


def test_rates_and_what_follows_from_them_come_with_their_intervals():
    rates = {
        "sensitivity": {"value": 0.9, "low": 0.8, "high": 0.95},
        "specificity": {"value": 0.9, "low": 0.8, "high": 0.95},
    }
    text = describe_model(card(**rates))
    assert "found 90 of 100 (80 to 95) images with pneumonia" in text
    assert "It gave 10 of 100 (5 to 20) normal images a false alarm" in text
    text = describe_prevalence(card(**rates), 0.123456, 0.1)
    assert "50 of 100 (33 to 67) alarms are right (precision)" in text  # as in predictive_values' own example


def test_prevalence_changes_what_is_told_and_never_the_decision(planted, planted_folder):
    page = app.App(predict.Predictor(planted, model.read_card(planted_folder) | {"metrics": measured()["metrics"]}), {})
    upload(page, "sick.png", png(SICK))
    before = csv_rows(page)
    assert page.prevalence.value == 50
    assert "82 of 100 alarms" in page.meaning.value
    page.prevalence.value = 1
    assert "4 of 100 alarms" in page.meaning.value
    assert csv_rows(page) == before


@pytest.mark.parametrize(("typed", "warned"), [("", False), ("4", False), ("0,5", False), ("6", False), ("62", True)])
def test_the_age_warns_where_the_model_was_not_made_for_it(of_children, typed, warned):
    upload(of_children, "sick.png", png(SICK))
    of_children.age.value = typed
    assert (
        "made for children of 1 to 5; this patient's age is 62 years" in html.unescape(shown(of_children))
    ) is warned
    (row,) = csv_rows(of_children)
    assert row["age"] == typed.replace(",", ".")
    assert (row["decision"], bool(row["warnings"])) == ("PNEUMONIA", warned)


@pytest.mark.parametrize("typed", ["old", "-1", "130", "nan"])
def test_an_age_that_is_none_is_refused_in_words(page, typed):
    upload(page, "sick.png", png(SICK))
    page.age.value = typed
    assert "a number of years from 0 to 120" in page.status.value
    assert csv_rows(page)[0]["age"] == ""
    page.age.value = "3"
    assert not page.status.value


def test_age_and_reading_belong_to_the_image_they_were_given_for(of_children):
    upload(of_children, "one.png", png(SICK))
    of_children.age.value, of_children.reading.value = "62", "unsure"
    upload(of_children, "two.png", png(SICK))
    assert (of_children.age.value, of_children.reading.value) == ("", "not given")
    assert "age is" not in shown(of_children)
    of_children.chosen.index = 0
    assert (of_children.age.value, of_children.reading.value) == ("62", "unsure")
    assert [(row["age"], row["own label"]) for row in csv_rows(of_children)] == [("62", "unsure"), ("", "")]


def test_the_next_uncertain_image_is_found_from_here_on_and_round(planted, planted_folder):
    stored = model.read_card(planted_folder)
    probability = predict.Predictor.load(planted_folder).predict(png(SICK)).probability
    page = app.App(predict.Predictor(planted, stored | {"uncertain": [0.3, probability]}), {})
    for name, film in (("a", SICK), ("b", HEALTHY), ("c", SICK), ("d", HEALTHY)):
        upload(page, name, png(film))
    seen = []
    for _ in range(3):
        page.next.click()
        seen.append(page.chosen.value.file)
    assert seen == ["a", "c", "a"]
    page.threshold.value = 0.1  # at another threshold than the model's own nothing is uncertain
    page.next.click()
    assert "No answer of this session is uncertain" in page.status.value
    assert page.chosen.value.file == "a"


@pytest.mark.parametrize("name", ["=2+3.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png", "\uff1d1.png"])
def test_a_file_name_is_no_formula_in_a_spreadsheet(page, name):
    upload(page, name, png(SICK))
    upload(page, "plain 1+1=2.png", png(SICK))
    assert [row["file"] for row in csv_rows(page)] == ["'" + name, "plain 1+1=2.png"]


@pytest.mark.parametrize(("separator", "mark", "point"), [(0, ",", "."), (1, ";", ","), (2, "\t", ".")])
def test_the_csv_opens_in_a_spreadsheet_of_every_country(page, predictor, separator, mark, point):
    page.separator.index = separator
    upload(page, "胸部 é;,.png", png(SICK))
    link = next(a["href"] for a in Tags(page.table.value).named("a"))
    data = base64.b64decode(link.partition("base64,")[2])
    assert data.startswith("\ufefffile".encode())
    header, row = csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=mark)
    assert header[:2] == ["file", "probability"]
    assert row[0] == "胸部 é;,.png"
    assert row[1] == f"{predictor.predict(png(SICK)).probability:.9g}".replace(".", point)


def test_the_report_tells_all_that_the_page_does(of_children):
    upload(of_children, "sick.png", png(SICK))
    of_children.age.value, of_children.reading.value = "62", "NORMAL"
    report, text = of_children.viewer.report, "\n".join(of_children.viewer.report["lines"])
    assert report["file"] == "sick.png"
    assert report["answer"].startswith("Signs of pneumonia: probability")
    for part in (
        "Warning: made for children",
        "Age given: 62 years",
        "Reader's own label: NORMAL",
        "Model: ",
        "Made for",
    ):
        assert part in text
    upload(of_children, "letter.jpg", b"Dear doctor,")
    assert not of_children.viewer.report
