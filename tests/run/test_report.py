"""What the index says first, and the report that can be published: numbers and plots, but no picture of a person."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from helpers import config, evaluation, storage
from helpers.run import provenance, publish, report

ILL, WELL = "PNEUMONIA", "NORMAL"
BAND = [0.4, 0.6]


def test_of_100_none_and_all_are_kept_for_none_and_all():
    assert [report.of_100(*pair) for pair in ((0, 7), (7, 7), (1, 900), (899, 900), (86, 200))] == [0, 100, 1, 99, 43]


def evaluated(
    folder, rows: list[tuple[str, float]], uncertain: list[float] | None, explained: str = "", **parameters
) -> BeautifulSoup:
    """The index of a run whose 05 left these answers, and whose 06 has the status `explained`."""
    table = pd.DataFrame(rows, columns=["label", "probability"]).assign(split="test", subtype="")
    table["path"] = [f"test/{label}/person{row}_virus_1.png" for row, (label, _) in enumerate(rows)]
    table["patient"] = [f"person{row}_virus" for row in range(len(rows))]
    table[["path", "split", "label", "probability"]].to_csv(folder / "predictions.csv", index=False)
    for name in ("manifest.csv", "splits.csv"):
        table[["path", "split", "label", "patient", "subtype"]].to_csv(folder / name, index=False)
    storage.write_json(folder / "metrics.json", {"test": evaluation.summarise(table, 0.5, "0.5", 20, 0)})
    storage.write_json(folder / "model/model.json", {"uncertain": uncertain, "phantoms": False})
    notebooks = {"06_grad_cam": {"status": explained, "title": "6", "purpose": ""}} if explained else {}
    record = {"run": "r", "profile": "chest_xray", "parameters": {"phantoms": 0} | parameters, "notebooks": notebooks}
    storage.write_json(folder / "run.json", record)
    return BeautifulSoup(report.write_index(folder).read_text(encoding="utf-8"), "html.parser")


ROWS = [(ILL, 0.9)] * 190 + [(ILL, 0.55)] * 6 + [(ILL, 0.45)] + [(ILL, 0.1)] * 3
ROWS += [(WELL, 0.1)] * 80 + [(WELL, 0.45)] * 6 + [(WELL, 0.55)] * 4 + [(WELL, 0.8)] * 10


def words(page: BeautifulSoup, where: str) -> str:
    return " ".join(page.select_one(where).get_text().split())


def test_the_index_opens_with_what_the_model_finds_of_100(tmp_path):
    page = evaluated(tmp_path, ROWS, BAND)
    said = (
        "Of 100 X-rays of children with pneumonia the model finds 98; of 100 without, it raises a false alarm for 14."
    )
    assert words(page, ".answer") == said
    assert words(page, ".answer + p") == (
        "This was counted on 300 test images. Of 200 with pneumonia it missed 4, 3 of them with certainty. Of 100 "
        "without, it raised a false alarm for 14, 10 of them with certainty. For 17 images it was uncertain and would "
        "ask for a reader."
    )
    before = [tag.name for tag in page.main.find_all(["h1", "h2", "table"])]
    assert before[:2] == ["h1", "table"], "no heading comes before the drawing and the table"


def test_each_drawing_has_100_figures_and_says_in_words_what_they_are(tmp_path):
    page = evaluated(tmp_path, ROWS, BAND)
    drawings = page.select(".hundred > svg")
    assert [len(drawing.find_all("use")) for drawing in drawings] == [100, 100]
    kinds = [[use["href"] for use in drawing.find_all("use")] for drawing in drawings]
    assert [[of.count(f"#who{kind}") for kind in range(4)] for of in kinds] == [[95, 3, 0, 2], [80, 6, 4, 10]]
    assert [drawing["aria-label"] for drawing in drawings] == [
        "found: 95; found, but uncertain: 3; missed, with certainty: 2",
        "no alarm: 80; no alarm, but uncertain: 6; false alarm, but uncertain: 4; false alarm, with certainty: 10",
    ]
    marks = [len(symbol.find_all("path")) for symbol in page.find_all("symbol")]
    assert marks == [1, 2, 2, 2], "uncertain and wrong are marked by a shape, not by colour alone"


def test_the_table_of_counts_is_the_confusion_of_metrics_json(tmp_path):
    page = evaluated(tmp_path, ROWS, BAND)
    rows = [
        [int(re.match(r"\d+", cell.get_text())[0]) for cell in row("td")] for row in page.select(".counts tbody tr")
    ]
    c = storage.read_json(tmp_path / "metrics.json")["test"]["confusion"]
    assert rows == [[c["tp"], c["fn"], 200, 7], [c["fp"], c["tn"], 100, 10]]


def test_without_an_uncertain_range_nothing_is_said_of_certainty(tmp_path):
    page = evaluated(tmp_path, ROWS, None)
    assert "certain" not in words(page, ".answer + p")
    assert page.select_one(".hundred > svg")["aria-label"] == "found: 98; missed: 2"
    assert len(page.select(".counts thead th")) == 4


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(ILL, 0.9)] * 3, "Of 100 X-rays of children with pneumonia the model finds 100."),
        (
            [(WELL, 0.9), (WELL, 0.1)],
            "Of 100 X-rays of children without pneumonia the model raises a false alarm for 50.",
        ),
    ],
)
def test_an_index_of_one_class_speaks_of_that_class_alone(tmp_path, rows, said):
    page = evaluated(tmp_path, rows, BAND)
    assert words(page, ".answer") == said
    assert len(page.select(".hundred")) == 1


def test_phantoms_and_files_of_unknown_names_are_not_called_children(tmp_path):
    assert "100 phantoms with" in words(evaluated(tmp_path, ROWS, BAND, phantoms=600), ".answer")
    evaluated(tmp_path, ROWS, BAND)
    table = pd.read_csv(tmp_path / "splits.csv")
    table.assign(patient=table["path"]).to_csv(tmp_path / "splits.csv", index=False)
    page = BeautifulSoup(report.write_index(tmp_path).read_text(encoding="utf-8"), "html.parser")
    assert "Of 100 images with pneumonia" in words(page, ".answer")


def test_each_case_shows_image_heatmap_outcome_and_a_comment(tmp_path):
    case = {"label": ILL, "subtype": "virus", "outcome": "FN", "uncertain": False, "probability": 0.1}
    case |= {
        "path": "test/<x>.png",
        "strongest": "lower left",
        "image": "data:image/png;base64,AA",
        "heatmap": "data:,B",
    }
    unsure = case | {"outcome": "TP", "uncertain": True, "strongest": "", "probability": 0.55}
    storage.write_json(tmp_path / "cases.json", {"cases": [case, unsure]})
    assert not evaluated(tmp_path, ROWS, BAND, "outdated").select(".cases li")  # of another threshold, maybe
    page = evaluated(tmp_path, ROWS, BAND, "done")
    wrong, open_ = page.select(".cases li")
    assert [image["src"] for image in wrong("img")] == ["data:image/png;base64,AA", "data:,B"]
    assert [image["alt"] for image in wrong("img")][1] == "the same with its heatmap, strongest in the lower left"
    assert words(wrong, ".verdict") == "✕ False negative"
    said = "Pneumonia (virus), but missed. Probability 0.100, threshold 0.500. Of these errors it is the surest."
    assert said in wrong.get_text()
    assert "test/<x>.png" in wrong.get_text()
    assert words(open_, ".verdict") == "? Uncertain"
    assert "without a reader it would be a true positive" in open_.get_text()
    assert "The heatmap is empty" in open_.get_text()
    assert "python -m helpers.publish --report r" in page.get_text(), "the page holds X-rays, and says so"


# the report that can be published


def test_of_styles_in_outputs_only_the_still_picture_s_is_kept(tmp_path):
    still, table = (
        "<style>p{left:1px}</style><div class='xray'>x</div>",
        "<div><style>p{left:2px}</style><table></table></div>",
    )
    outputs = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in (still, table)]
    cells = [nbformat.v4.new_markdown_cell("# Seven"), nbformat.v4.new_code_cell("f", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "07_x.ipynb")
    report.render(tmp_path / "07_x.ipynb", tmp_path / "07_x.html")
    text = (tmp_path / "07_x.html").read_text(encoding="utf-8")
    assert "p{left:1px}" in text
    assert "p{left:2px}" not in text


def picture(grey: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PLOT, FILM = picture(255), picture(77)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of real images: 05 and 06 with a plot, and with films wherever an output can hold one."""
    monkeypatch.setattr(config, "REPORTS", tmp_path / "reports")
    folder = tmp_path / "reports" / "real"
    folder.mkdir(parents=True)
    secret = str(tmp_path / "secret place" / "xrays")
    evaluated(folder, ROWS, BAND)
    output = nbformat.v4.new_output
    film = {"image/png": FILM, "text/plain": "<Figure>"}
    films = [output("display_data", film), output("display_data", {"image/jpeg": FILM})]
    films += [output("display_data", {"image/svg+xml": f"<svg><image href='data:image/png;base64,{FILM}'/></svg>"})]
    films += [output("display_data", {"text/html": f"<p>five</p><img src='data:image/png;base64,{FILM}'>"})]
    films += [output("display_data", {"text/html": f"<svg><image href='data:image/png;base64,{FILM}'/></svg>"})]
    films += [output("display_data", {"text/markdown": f"![x](data:image/png;base64,{FILM})"})]
    films += [output("display_data", {"text/html": f"<p style='background:url(data:image/png;base64,{FILM})'>six</p>"})]
    plot = nbformat.v4.new_code_cell(
        "p", metadata={"tags": ["plot"]}, outputs=[output("display_data", {"image/png": PLOT})]
    )
    said = output("stream", text=f"read {secret}\n")
    links = "# Five\n\nWhy.\n\n[six](06_x.ipynb) [seven](07_x.ipynb#a) [methods](../docs/METHODS.md)"
    for stem in ("05_x", "06_x"):
        cells = [nbformat.v4.new_markdown_cell(links), nbformat.v4.new_code_cell("f", outputs=films), plot]
        cells += [nbformat.v4.new_code_cell(f"data = '{secret}'", outputs=[said])]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")
    settings = config.make_settings("chest_xray", {"data": secret})
    entries = {stem: {"status": "done", "title": "Five", "purpose": "Why."} for stem in ("05_x", "06_x", "07_x")}
    record = provenance.provenance("real", settings, "01")
    storage.write_json(folder / "run.json", record | {"notebooks": entries})
    storage.write_json(folder / "cases.json", {"cases": [{"image": f"data:image/png;base64,{FILM}"}]})
    return folder


def test_a_published_report_keeps_plots_and_no_other_picture(run):
    assert publish.main(["--report", "real"]) == 0
    target = run.parent / "results" / "real"
    assert {file.name for file in target.iterdir()} == {"index.html", "05_x.html", "06_x.html", "metrics.json"}
    for file in target.glob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert FILM not in text
        assert text.count("data:image") == (0 if file.stem == "index" else 1)
        assert (f"data:image/png;base64,{PLOT}" in text) == (file.stem != "index")
    page = BeautifulSoup((target / "05_x.html").read_text(encoding="utf-8"), "html.parser")
    assert page.get_text().count(report.LEFT_OUT) == 6
    assert "five" in page.get_text(), "what stands beside a picture stays"


def test_a_published_report_leads_only_to_what_is_there(run):
    publish.main(["--report", "real"])
    target = run.parent / "results" / "real"
    page = BeautifulSoup((target / "05_x.html").read_text(encoding="utf-8"), "html.parser")
    found = [link["href"] for link in page.select(".md a")]
    assert found == ["06_x.html", "../../../notebooks/07_x.ipynb#a", "../../../docs/METHODS.md"]
    index = BeautifulSoup((target / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert [link["href"] for link in index("a")] == ["05_x.html", "06_x.html"]


def test_a_published_report_names_no_place_of_this_machine(run, tmp_path):
    publish.main(["--report", "real"])
    for file in (run.parent / "results" / "real").iterdir():
        text = file.read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert "secret place" not in text
    index = BeautifulSoup((run.parent / "results/real/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "--data 'xrays'" in index.select_one(".command").get_text()


def test_the_numbers_of_a_published_report_are_those_of_metrics_json(run):
    publish.main(["--report", "real"])
    target = run.parent / "results" / "real"
    assert (target / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    index = BeautifulSoup((target / "index.html").read_text(encoding="utf-8"), "html.parser")
    shown = {row.th.get_text(): " ".join(row.td.get_text().split()) for row in index.select(".metrics tbody tr")}
    test = storage.read_json(run / "metrics.json")["test"]
    for name in evaluation.METRICS:
        assert shown[report.human_name(name)] == evaluation.with_interval(test[name]).replace("(", "").replace(")", "")


@pytest.mark.parametrize("change", ["pending", "own names", "broken on purpose"])
def test_a_report_that_is_unfinished_or_may_name_patients_is_refused(run, capsys, change):
    if change == "pending":
        record = json.loads((run / "run.json").read_text())
        record["notebooks"]["06_x"]["status"] = "outdated"
        storage.write_json(run / "run.json", record)
    elif change == "own names":
        table = pd.read_csv(run / "manifest.csv")
        table.assign(patient=table["path"]).to_csv(run / "manifest.csv", index=False)
    else:
        record = json.loads((run / "run.json").read_text())
        record["parameters"]["traps"] = "marker"
        storage.write_json(run / "run.json", record)
    assert publish.main(["--report", "real"]) == 2
    said = {"pending": "--name real --resume", "own names": "may tell who a patient is"}.get(change, "on purpose")
    assert said in capsys.readouterr().err
    assert not (run.parent / "results").exists()


def test_a_smoke_run_published_holds_nothing_but_its_plots(smoke):
    done = smoke.clone.python("helpers.publish", "--report", smoke.name)
    assert done.returncode == 0, done.stderr
    target = smoke.clone.reports / "results" / smoke.name
    try:
        for page in target.glob("0*.html"):
            executed = nbformat.read(smoke.folder / f"{page.stem}.ipynb", as_version=4)
            allowed = {
                output.data["image/png"].replace("\n", "")
                for cell in executed.cells
                if "plot" in cell.metadata.get("tags", [])
                for output in cell.outputs
                if "image/png" in output.get("data", {})
            }
            text = page.read_text(encoding="utf-8")
            assert set(re.findall(r"data:image/\w+;base64,([^\"]+)", text)) == allowed
            test = storage.read_json(target / "metrics.json")["test"]
            if page.stem.startswith("05"):
                numbers = evaluation.table(test).set_index("metric")
                rows = {
                    row.th.get_text().strip(): row.get_text()
                    for row in BeautifulSoup(text, "html.parser")("tr")
                    if row.th
                }
                assert all(value in rows[name] for name, value in numbers["value"].items())
    finally:
        shutil.rmtree(target)
