"""From a file to a decision: the Predictor, and the command with its CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from helpers import config, images, model, predict, storage
from helpers.config import InputError
from helpers.images import ahead
from tests.conftest import dicom, planted_film, planted_logit

HEADER = "path,probability,label,threshold,warnings,error"


@pytest.fixture(scope="module")
def predictor(planted_folder) -> predict.Predictor:
    return predict.Predictor.load(planted_folder)


def expected(film: np.ndarray) -> float:
    """Calibrated: the card of the planted model adds a half to the logit."""
    return 1 / (1 + np.exp(-(planted_logit(film) + 0.5)))


def png(film: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "PNG")
    return buffer.getvalue()


# The Predictor


def test_a_prediction_is_the_model_s_calibrated_probability(predictor):
    sick, healthy = planted_film((2, 20)), planted_film()
    found, spared = predictor.predict(png(sick)), predictor.predict(png(healthy))
    assert found.probability == pytest.approx(expected(sick), abs=1e-5)
    assert spared.probability == pytest.approx(expected(healthy), abs=1e-5)
    assert (found.label, spared.label) == ("PNEUMONIA", "NORMAL")
    assert found.threshold == 0.4
    assert np.array_equal(found.pixels, sick)


def test_path_and_bytes_give_the_same(predictor, tmp_path):
    film = planted_film((5, 6), 80)
    (tmp_path / "film.png").write_bytes(png(film))
    results = [predictor.predict(source) for source in (png(film), tmp_path / "film.png", str(tmp_path / "film.png"))]
    assert len({r.probability for r in results}) == 1
    assert results[0].pixels.shape == (32, 32)
    assert np.array_equal(results[0].pixels, images.resize(film, 32))


def test_one_by_one_is_as_in_a_batch(predictor):
    films = [planted_film((k, k) if k % 2 else None, 32 + k, k) for k in range(20)]
    together = [p.probability for p in predictor.predict_decoded(images.Decoded(film, ()) for film in films)]
    alone = [predictor.predict(png(film)).probability for film in films]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert np.ptp(alone) > 0.5


def test_exactly_at_the_threshold_is_positive(planted):
    film = planted_film((2, 20))
    card = {"threshold": 0.5, "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0}}
    at = predict.Predictor(planted, card).predict(png(film)).probability
    for threshold, label in ((at, "PNEUMONIA"), (np.nextafter(at, 2), "NORMAL"), (np.nextafter(at, 0), "PNEUMONIA")):
        found = predict.Predictor(planted, card | {"threshold": float(threshold)}).predict(png(film))
        assert (found.label, found.probability) == (label, at)


@pytest.mark.parametrize(("usual", "warned"), [(-1, True), (np.inf, False)])
def test_a_label_that_the_frame_decides_is_no_sure_answer(planted, usual, warned):
    films = [planted_film((2, 20), 64, seed) for seed in range(60)]
    card = {"threshold": 0.5, "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0}}
    seen = [images.resize(film, 32) for film in films]
    check = model.ood.fit(seen, seen)._replace(usual=usual)
    frames = [images.resize(film, 32) for film in (films[0], predict.reframed(films[0], 0.06))]
    threshold = float(predict.Predictor(planted, card).probabilities(np.stack(frames)).mean())
    found = predict.Predictor(planted, card | {"threshold": threshold}, check).predict(png(films[0]))
    assert found.uncertain == warned
    assert found.warnings == ((predict.FRAMING,) if warned else ())


def test_reframed_cuts_or_adds_black_at_each_side():
    film = planted_film(size=50)
    assert np.array_equal(predict.reframed(film, 0.1), film[5:45, 5:45])
    wider = predict.reframed(film, -0.1)
    assert wider.shape == (60, 60)
    assert np.array_equal(wider[5:55, 5:55], film)
    assert not wider[:5].any()


def test_an_unreadable_image_is_refused(predictor, tmp_path):
    with pytest.raises(InputError, match="the image"):
        predictor.predict(b"not an image")
    with pytest.raises(InputError, match=r"none\.png"):
        predictor.predict(tmp_path / "none.png")


def test_a_model_without_a_threshold_is_refused(planted, tmp_path):
    model.save(planted, tmp_path, model.make_card(config.make_settings("smoke"), "", public=True))
    with pytest.raises(InputError, match="has no threshold yet: run 05_evaluation first"):
        predict.Predictor.load(tmp_path)


def test_the_heatmap_of_a_prediction_is_hottest_at_the_spot(predictor):
    heat = predictor.heatmap(predictor.predict(png(planted_film((2, 20)))))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.shape == (32, 32)
    assert 2 <= row < 12
    assert 20 <= column < 30


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (planted_film(size=200), []),
        (planted_film(size=63), ["very small image (63 x 63 pixels)"]),
        (planted_film(size=200)[:60, :100], ["very small image (100 x 60 pixels)"]),
        (planted_film(size=400)[:100], ["unusual shape for a chest X-ray (400 x 100 pixels)"]),
        (planted_film(size=400)[:, :100], ["unusual shape for a chest X-ray (100 x 400 pixels)"]),
        (np.full((200, 200), 128, np.uint8), ["almost uniform image"]),
        (np.zeros((10, 100), np.uint8), ["very small", "unusual shape", "almost uniform"]),
    ],
)
def test_doubts_say_why_a_number_may_not_mean_much(image, said):
    found = list(predict.image_warnings(image))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


@pytest.mark.parametrize("grey", [0, 7, 128, 255])
def test_a_picture_that_shows_next_to_nothing_gets_no_sure_answer(planted, grey):
    film = np.full((200, 200), grey, np.uint8)
    film[5:15, 5:30] = 255  # a letter
    if grey < 200:
        film[20:] += planted_film(size=200)[20:] // 20  # of the film, nearly nothing
    for threshold in (0.01, 0.4, 0.99):
        card = {"threshold": threshold, "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0}}
        found = predict.Predictor(planted, card).predict(png(film))
        assert found.uncertain
        assert found.out_of_distribution
        assert "almost uniform image" in found.warnings
        assert found.warnings[-1] == predict.UNCERTAIN


@pytest.mark.parametrize(
    ("public", "age", "warned"),
    [(True, 62, True), (True, 7, True), (True, 6.9, False), (True, 0, False), (True, None, False), (False, 62, False)],
)
def test_the_age_is_warned_of_where_the_model_is_for_children(planted, public, age, warned):
    card = {"threshold": 0.4, "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0}, "public": public}
    notes = (images.NOT_A_CHILD,) if age and age >= 7 else ()
    decoded = images.Decoded(planted_film(size=100), notes, age)
    found = next(predict.Predictor(planted, card).predict_decoded([decoded])).warnings
    said = f"made for children of 1 to 5; this patient's age is {int(age or 0)} years: do not trust the number"
    assert found == ((said,) if warned else ())


# The command


@pytest.fixture
def folder(tmp_path):
    """Five images and what else lies about, in folders whose order is not that of their names."""
    films = {"b/2.png": None, "b/10.png": (2, 20), "a.PNG": (5, 5), "c/deep/x.jpg": None, "c.d.png": (9, 9)}
    for k, (path, spot) in enumerate(films.items()):
        file = tmp_path / "in" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(planted_film(spot, 96, k)).save(file, "JPEG" if path.endswith("jpg") else "PNG")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"x")
    return tmp_path / "in"


SORTED = ["a.PNG", "b/10.png", "b/2.png", "c.d.png", "c/deep/x.jpg"]


@pytest.fixture
def command(planted_folder, tmp_path, capsys):
    """Run the command on the planted model: exit status, rows of its CSV, what it said to a person."""

    def run(*arguments: object, with_model: bool = True) -> tuple[int, list[dict], str]:
        given = ["--model", str(planted_folder)] if with_model else []
        status = predict.command.main([*given, "--csv", str(tmp_path / "out.csv"), *map(str, arguments)])
        table = (tmp_path / "out.csv").read_text(encoding="utf-8") if (tmp_path / "out.csv").exists() else HEADER
        assert table.splitlines()[0] == HEADER
        return status, list(csv.DictReader(io.StringIO(table))), capsys.readouterr().err

    return run


def test_a_folder_gets_a_row_per_image_sorted(command, folder, predictor):
    status, rows, _ = command(folder)
    assert status == 0
    assert [row["path"] for row in rows] == [f"{folder}/{name}" for name in SORTED]
    for row in rows:
        film = images.resize(images.read_image(row["path"]), 32)
        assert float(row["probability"]) == pytest.approx(expected(film), abs=1e-5)
        assert float(row["probability"]) == pytest.approx(predictor.predict(row["path"]).probability, abs=1e-6)
        assert row["label"] == ("PNEUMONIA" if float(row["probability"]) >= 0.4 else "NORMAL")
        assert (float(row["threshold"]), row["error"], row["warnings"]) == (0.4, "", "")
    assert {row["label"] for row in rows} == {"PNEUMONIA", "NORMAL"}


def test_arguments_keep_their_order_and_their_spelling(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, rows, _ = command("c.d.png", "./b", "../in/a.PNG", "c.d.png")
    assert [row["path"] for row in rows] == ["c.d.png", "./b/10.png", "./b/2.png", "../in/a.PNG", "c.d.png"]
    assert rows[0] == rows[4]


def test_a_file_named_by_the_user_always_gets_a_row(command, folder):
    shutil.copy(folder / "a.PNG", folder / "film.scan")
    status, rows, said = command(folder / "film.scan", folder / "notes.txt", folder / "none.png")
    assert status == 1
    assert [row["path"] for row in rows] == [f"{folder}/{name}" for name in ("film.scan", "notes.txt", "none.png")]
    assert rows[0]["label"]
    assert not rows[0]["error"]
    assert "notes.txt cannot be read as an image" in rows[1]["error"]
    assert "none.png cannot be opened" in rows[2]["error"]
    assert "2 of 3 images could not be read" in said


def test_unreadable_images_get_their_row_and_the_others_are_predicted(command, folder):
    (folder / "b" / "0.jpeg").write_bytes(b"")
    (folder / "b" / "5.dcm").write_text("no DICOM")
    status, rows, _ = command(folder)
    assert status == 1
    broken = [row for row in rows if row["error"]]
    assert [row["path"] for row in broken] == [f"{folder}/b/0.jpeg", f"{folder}/b/5.dcm"]
    for row in broken:
        assert [row[name] for name in ("probability", "label", "threshold", "warnings")] == [""] * 4
    assert len(rows) == len(SORTED) + 2
    assert all(row["probability"] for row in rows if row not in broken)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_escaped_and_the_others_are_predicted(command, folder):
    (folder / "a.PNG").rename(os.fsdecode(os.fsencode(folder) + b"/R\xf6n.png"))
    _, rows, _ = command(str(folder))
    (row,) = (row for row in rows if "udcf6" in row["path"])
    assert row["path"].endswith("R\\udcf6n.png")
    assert row["probability"]
    assert len(rows) > 1


def test_only_unreadable_images_are_no_crash(command, folder):
    status, rows, _ = command(folder / "notes.txt")
    assert (status, len(rows)) == (1, 1)


def test_more_images_than_a_batch_come_in_order(command, tmp_path):
    for k in range(35):
        (tmp_path / "many").mkdir(exist_ok=True)
        content = png(planted_film((k % 20, 5), 40, k)) if k != 20 else b"broken"
        (tmp_path / "many" / f"{k:02d}.png").write_bytes(content)
    status, rows, _ = command(tmp_path / "many")
    assert status == 1
    assert [row["path"][-6:-4] for row in rows] == [f"{k:02d}" for k in range(35)]
    assert [bool(row["error"]) for row in rows] == [k == 20 for k in range(35)]


def test_warnings_are_in_the_row(command, tmp_path):
    (tmp_path / "tiny.png").write_bytes(png(np.zeros((10, 100), np.uint8)))
    _, rows, _ = command(tmp_path / "tiny.png")
    assert rows[0]["warnings"].count("; ") == 3
    assert rows[0]["label"] == "NORMAL"


def test_the_age_given_holds_where_the_file_does_not_say_it(command, planted_folder, tmp_path):
    film, folder = planted_film(size=100), shutil.copytree(planted_folder, tmp_path / "for children")
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps(card | {"phantoms": False}), encoding="utf-8")
    (tmp_path / "a.png").write_bytes(png(film))
    (tmp_path / "b.dcm").write_bytes(dicom(film, bits=8, PatientAge="003Y", PatientName="Doe^Jane"))
    _, rows, _ = command("--model", folder, "--age", 62, tmp_path / "a.png", tmp_path / "b.dcm")
    assert ["62 years" in row["warnings"] for row in rows] == [True, False]
    assert not any("Doe" in text for row in rows for text in row.values())
    _, rows, _ = command("--model", folder, tmp_path / "a.png")
    assert rows[0]["warnings"] == ""


@pytest.mark.parametrize("age", ["nan", "inf", "-1", "121", "four"])
def test_what_is_no_age_is_refused_before_any_image_is_read(command, tmp_path, age):
    status, rows, said = command("--age", age, tmp_path / "none.png")
    assert (status, rows) == (2, [])
    assert "the age is a number of years from 0 to 120" in said


def test_names_with_commas_quotes_and_umlauts_survive(command, tmp_path):
    name = 'Müller, "Hans".png'
    (tmp_path / name).write_bytes(png(planted_film()))
    assert command(tmp_path / name)[1][0]["path"] == str(tmp_path / name)


def test_heatmaps_are_written_for_what_can_be_read(command, folder, tmp_path):
    (folder / "b" / "3.png").write_bytes(b"broken")
    shutil.copy(folder / "b" / "2.png", folder / "c" / "2.png")  # two files of one name
    command("--heatmaps", tmp_path / "heat" / "maps", folder)
    written = sorted((tmp_path / "heat" / "maps").iterdir())
    assert [file.name for file in written] == [
        *("00001_a.png", "00002_10.png", "00003_2.png", "00005_c.d.png", "00006_2.png", "00007_x.png")
    ]
    shown = np.asarray(Image.open(written[1]))
    assert shown.shape == (96, 96, 3)
    film = images.read_image(folder / "b" / "10.png")
    changed = np.any(shown != film[..., None], axis=-1)
    assert changed[6:36, 60:90].mean() > 0.9  # on the bright square
    assert changed[50:, :50].mean() < 0.05


def test_without_a_file_the_table_is_printed(planted_folder, folder, capsys):
    assert predict.command.main(["--model", str(planted_folder), str(folder / "a.PNG")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == HEADER
    assert lines[1].startswith(f"{folder}/a.PNG,")
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["=2+3.png", "+1.png", "@SUM(A1).png", "-1.png", "\uff1d1.png"])
def test_a_path_is_no_formula_in_a_spreadsheet_and_still_opens(command, folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    shutil.copy("a.PNG", name)
    Path("b", name).write_bytes(b"no image")
    status, rows, _ = command("--", name, "a.PNG", "b")
    assert status == 1
    assert [row["path"] for row in rows][:2] == ["./" + name, "a.PNG"]
    assert Path(rows[0]["path"]).is_file()
    assert not [cell for row in rows for cell in row.values() if cell.startswith(storage.FORMULA)]


def test_for_excel_the_table_begins_with_a_byte_order_mark(planted_folder, folder, tmp_path):
    shutil.copy(folder / "a.PNG", folder / "胸.png")
    table, words = tmp_path / "table.csv", ["--model", str(planted_folder), str(folder / "胸.png")]
    for option, start in (([], b"path,"), (["--excel"], b"\xef\xbb\xbfpath,")):
        assert predict.command.main([*option, "--csv", str(table), *words]) == 0
        assert table.read_bytes().startswith(start)
        assert table.read_text(encoding="utf-8-sig").splitlines()[1].startswith(f"{folder}/胸.png,")


def test_excel_without_a_file_asks_for_one(folder, capsys):
    assert predict.command.main(["--excel", str(folder)]) == 2
    assert "name it with --csv" in capsys.readouterr().err


def test_a_missing_default_model_asks_for_one(command, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "PRETRAINED", tmp_path / "pretrained")
    status, rows, said = command(folder, with_model=False)
    assert (status, rows) == (2, [])
    assert re.search(r"pretrained is not there: name a model with --model", said)
    assert "Traceback" not in said


def test_the_default_model_is_the_pretrained_one(command, folder, monkeypatch, planted_folder):
    monkeypatch.setattr(config, "PRETRAINED", planted_folder)
    assert command(folder, with_model=False)[:2] == command(folder)[:2]


@pytest.mark.parametrize("kind", ["missing", "damaged", "newer"])
def test_a_model_that_cannot_be_used_is_status_2(command, folder, planted_folder, tmp_path, kind):
    copy = tmp_path / "copy"
    if kind != "missing":
        shutil.copytree(planted_folder, copy)
        card = json.loads((copy / "model.json").read_text())
        storage.write_json(copy / "model.json", card | ({"format": 2} if kind == "newer" else {"sha256": "0" * 64}))
    status, rows, said = command("--model", copy, folder, with_model=False)
    assert (status, rows) == (2, [])
    assert {"missing": "not a model folder", "damaged": "checksum", "newer": "format 2"}[kind] in said


def test_a_table_that_cannot_be_written_is_status_2(planted_folder, folder, tmp_path, capsys):
    arguments = ["--model", str(planted_folder), "--csv", str(tmp_path / "no" / "folder.csv"), str(folder)]
    assert predict.command.main(arguments) == 2
    assert "folder.csv" in capsys.readouterr().err


def test_a_table_is_not_written_over_an_image(planted_folder, folder, capsys):
    before = (folder / "a.PNG").read_bytes()
    assert (
        predict.command.main(["--model", str(planted_folder), "--csv", str(folder / "a.PNG"), str(folder / "b")]) == 2
    )
    assert "a.PNG names an image: give the file to write the table to" in capsys.readouterr().err
    assert (folder / "a.PNG").read_bytes() == before


def test_a_full_disk_is_told_in_a_sentence(planted_folder, folder, capsys):
    assert predict.command.main(["--model", str(planted_folder), "--csv", "/dev/full", str(folder)]) == 2
    assert "/dev/full cannot be written: No space left on device." in capsys.readouterr().err


def test_what_was_done_before_an_interruption_is_in_the_table(command, folder, monkeypatch):
    def interrupted(*given):
        yield from list(predict_files(*given))[:2]
        raise KeyboardInterrupt

    predict_files = predict.predict_files
    monkeypatch.setattr(predict.command, "predict_files", interrupted)
    status, rows, said = command(folder)
    assert (status, [row["path"] for row in rows]) == (130, [f"{folder}/{name}" for name in SORTED[:2]])
    assert said == "interrupted: the table holds the rows that were done.\n"


def test_a_reader_who_has_had_enough_ends_the_command_quietly(planted_folder, folder):
    """As `| head` does: nobody reads the table."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as table:
        arguments = ["--model", str(planted_folder), str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "helpers.predict", *arguments],
            cwd=config.ROOT, stdout=table, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_long_names_have_heatmaps_too(command, tmp_path):
    file = tmp_path / f"{'ü' * 120}.png"
    file.write_bytes(png(planted_film()))
    assert command("--heatmaps", tmp_path / "heat", file)[0] == 0
    assert len(list((tmp_path / "heat").iterdir())) == 1


@pytest.mark.parametrize(("processes", "most"), [(0, 16), (2, 48)])
def test_images_are_read_as_rows_are_asked_for(predictor, folder, processes, most):
    """Constant memory: a batch of 16 at a time, and 32 ahead of it, however many there are."""
    opened = []
    paths = (opened.append(k) or str(folder / "a.PNG") for k in range(10**9))
    rows = predict.predict_files(predictor, paths, processes=processes)
    assert next(rows)["label"]
    assert 16 <= len(opened) <= most
    rows.close()


@pytest.fixture
def many(tmp_path):
    """So many images that processes are started for them; one cannot be read."""
    folder = tmp_path / "very many"
    folder.mkdir()
    for k in range(predict.command.MANY + 9):
        content = png(planted_film((k % 20, 5) if k % 2 else None, 40 + k, k))
        (folder / f"{k:02d}.png").write_bytes(content if k != 20 else b"broken")
    yield folder
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})  # which `trace` sets


def test_many_images_are_predicted_to_the_bit_as_few_are(predictor, command, many):
    status, rows, said = command(many)
    assert status == 1
    assert "1 of 73 images could not be read" in said
    assert rows == list(predict.predict_files(predictor, predict.command.find_images([str(many)])))
    assert {row["label"] for row in rows} == {"", "PNEUMONIA", "NORMAL"}


@pytest.mark.skipif(sys.platform == "win32", reason="other signals there")
def test_processes_that_decode_are_started_with_ctrl_c_blocked():
    with ahead._pool(1) as pool:
        with ahead._ctrl_c_blocked():
            there = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        assert signal.SIGINT in there.result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(sys.platform == "win32", reason="other signals there")
def test_ctrl_c_among_many_images_is_quiet_and_leaves_no_process(planted_folder, many, tmp_path):
    table, words = tmp_path / "table.csv", [str(many)] * 300
    code = "import signal, sys; from helpers.predict import command\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
    code += "if __name__ == '__main__': sys.exit(command.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--model", planted_folder, "--csv", table, *words],
        cwd=config.ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (table.exists() and table.stat().st_size):
        assert process.poll() is None
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted: the table holds the rows that were done."
    assert "Traceback" not in said
    assert started
    assert not psutil.wait_procs(started, timeout=60)[1]


def test_the_command_line_speaks_to_people_only_when_asked(planted_folder, folder, tmp_path):
    """A process of its own: nothing but the table on stdout, no warnings of libraries on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.predict", "--model", planted_folder, folder / "a.PNG", "../x\x7f.png"],
        cwd=config.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [bool(row["error"]) for row in rows] == [False, True]
    said = [line for line in done.stderr.splitlines() if not re.match(r"[IWE]\d{4} |WARNING: All log messages", line)]
    assert said == ["1 of 2 images could not be read; see the column error."]
