"""What strangers hand over stays data: models run no code, settings are text, and the page answers its own visitors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from keras import layers
from papermill.parameterize import parameterize_notebook

from helpers import config, model, predict, storage
from helpers.config import InputError, make_settings
from helpers.run import provenance, runner
from tests.run.test_run import BOOT, house, write_notebook  # noqa: F401 - a fixture

# models


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small model of ours, in the folder "given" below an otherwise empty one."""
    start = layers.Input((4, 4, 1), name="pixels")
    x = layers.Dense(1, name="logit")(layers.Flatten(name="flat")(start))
    network = keras.Model(start, layers.Activation("sigmoid", name="probability")(x))
    model.save(
        network, tmp_path / "given", {"threshold": 0.5, "calibration": {"method": "none", "slope": 1, "intercept": 0}}
    )
    return tmp_path / "given"


def forge(folder: Path, change: Callable[[dict], object] | None = None, more: dict[str, bytes] | None = None) -> None:
    """Put a changed architecture, or `more` members, into model.keras, and make the checksum fit again."""
    with zipfile.ZipFile(folder / "model.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    if change:
        architecture = json.loads(members["config.json"])
        change(architecture)
        members["config.json"] = json.dumps(architecture).encode()
    with zipfile.ZipFile(folder / "model.keras", "w") as file:
        for name, content in (members | (more or {})).items():
            file.writestr(name, content)
    model.write_card(folder, json.loads((folder / "model.json").read_text()))


def replaced(module: str, name: str, given: dict) -> Callable[[dict], object]:
    """A change that lets the layer "flat" be something else."""

    def change(architecture: dict) -> None:
        layer = next(layer for layer in architecture["config"]["layers"] if layer["config"].get("name") == "flat")
        layer |= {"module": module, "class_name": name, "registered_name": None, "config": given}

    return change


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


CALLS = {
    "a process": ("subprocess", "Popen", {"args": ["touch", "code-ran"]}),
    "a shell": ("os", "system", {"command": "touch code-ran"}),
    "a built-in": ("builtins", "exec", {"source": "open('code-ran', 'w')"}),
    "ours": ("helpers.storage", "write_text", {"path": "code-ran", "text": ""}),
    "the switch itself": ("keras.config", "enable_unsafe_deserialization", {}),
    "a download": ("keras.utils", "get_file", {"fname": "code-ran", "origin": "file:///etc/hostname"}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_that_names_a_function_is_refused_and_calls_nothing(folder, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    forge(folder, replaced(*call))
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded"):
        model.load(folder)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../outside", "assets/../../outside", "/outside", "assets/inside/../../../../outside"]
)
def test_a_model_writes_nothing_outside_its_folder(folder, tmp_path, name):
    """A member whose path leaves the folder is refused or left alone, and written nowhere."""
    forge(folder, more={name: b"outside"})
    before = everything(tmp_path)
    try:
        model.load(folder)
    except InputError as error:
        assert "cannot be loaded" in str(error)  # noqa: PT017 - both ends are right
    assert everything(tmp_path) == before
    assert not Path("/outside").exists()


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("way", ["link", "storage"])
def test_weights_that_lie_in_another_file_are_refused(folder, tmp_path, way):
    """HDF5 can point to other files of this machine; a model must not bring their contents into its numbers."""
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["0"] = [[7.0]] * 16
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    with zipfile.ZipFile(folder / "model.keras") as file:
        (tmp_path / "weights.h5").write_bytes(file.read("model.weights.h5"))
    with h5py.File(tmp_path / "weights.h5", "r+") as weights:
        found: list[str] = []
        weights.visititems(lambda name, item: found.append(name) if getattr(item, "shape", None) == (16, 1) else None)
        (kernel,) = found
        del weights[kernel]
        if way == "link":
            weights[kernel] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "0")
        else:
            weights.create_dataset(kernel, (16, 1), "f4", external=[(str(tmp_path / "secret.bin"), 0, 64)])
    forge(folder, more={"model.weights.h5": (tmp_path / "weights.h5").read_bytes()})
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded"):
        model.load(folder)


def test_paths_in_a_card_lead_nowhere(folder, tmp_path):
    """model.json names no file: a model folder's files have fixed names, whatever its card says."""
    card = json.loads((folder / "model.json").read_text()) | {
        "model": "../other",
        "guard": "/etc/passwd",
        "files": ["../x"],
    }
    storage.write_json(folder / "model.json", card)
    model.load(folder)
    model.copy(folder, tmp_path / "copy")
    assert everything(tmp_path / "copy") == {"model.keras", "model.json"}
    storage.write_json(folder / "model.json", card | {"guard_sha256": "../../x"})
    with pytest.raises(InputError, match="does not fit the checksum"):
        predict.Predictor.load(folder)


# settings and names

PAYLOADS = (
    """"); __import__("os").mkdir("code-ran") #""",
    """'); __import__("os").mkdir("code-ran") #""",
    """\\"); __import__("os").mkdir("code-ran") #""",
    """x\nimport os; os.mkdir("code-ran")""",
    """x\r\nimport os; os.mkdir("code-ran")""",
    """x\u2028import os; os.mkdir("code-ran")\x00""",
    """\"\"\"\nimport os; os.mkdir("code-ran")\n\"\"\" """,
    "!mkdir code-ran",
    "\n!mkdir code-ran\n",
    "\n%system mkdir code-ran",
    "{__import__('os').mkdir('code-ran')}",
    "$(mkdir code-ran)",
    "`mkdir code-ran`",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_setting_reaches_a_notebook_as_text(payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict.fromkeys(provenance.PATHS, payload)
    wishes = [f"{name}={value}" for name, value in given.items()]
    settings = make_settings("smoke", config.parse_assignments(wishes))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "papermill": {}})
    notebook.cells = [nbformat.v4.new_code_cell("# Parameters", metadata={"tags": ["parameters"]})]
    cells = parameterize_notebook(notebook, provenance.changed(settings)).cells
    namespace: dict = {}
    exec(TransformerManager().transform_cell(cells[1].source), namespace)  # as IPython would
    assert {name: namespace[name] for name in given} == given
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in config.FIELDS if name not in provenance.PATHS])
def test_every_other_setting_takes_no_free_text(name):
    with pytest.raises(InputError, match=name):
        make_settings("smoke", {name: PAYLOADS[0]})


def test_a_folder_with_a_hostile_name_is_read_and_shown_as_text(house, capsys, monkeypatch):  # noqa: F811
    for notebook in config.NOTEBOOKS.glob("0[2-9]*"):
        notebook.unlink()
    write_notebook(config.NOTEBOOKS / "01_eda.ipynb", BOOT, "print('folder', settings.data)\n(folder / 'x').touch()")
    name = """{a}"); __import__("os").mkdir("code-ran") # '\n<img src=x onerror=alert(1)>"""
    for label in ("NORMAL", "PNEUMONIA"):
        (house / name / "train" / label).mkdir(parents=True)
    before = everything(house)
    assert runner.main(["--profile", "smoke", "--data", str(house / name)]) == 0
    made = everything(house) - before
    assert made
    assert all(path.startswith("reports") for path in made)
    assert not [path for path in made if "code-ran" in path]
    executed = nbformat.read(house / "reports/smoke/01_eda.ipynb", as_version=4)
    assert "".join(out.text for cell in executed.cells for out in cell.get("outputs", [])).endswith(f"{name}\n")
    for page in (house / "reports/smoke").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text


@pytest.mark.parametrize("name", ["../out", "..", "/tmp/out", "a/../../out", "a\n", "$(x)", ".lock"])
@pytest.mark.parametrize("command", ["run", "compare"])
def test_no_run_name_leaves_the_reports(house, command, name, capsys):  # noqa: F811
    from helpers.compare.command import main as compare

    before = everything(house)
    said = runner.main(["--name", name]) if command == "run" else compare([name, "other"])
    assert said == 2
    assert "cannot be a folder" in capsys.readouterr().err
    assert everything(house) - before <= {"reports"}
