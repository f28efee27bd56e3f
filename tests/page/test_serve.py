"""What the page is started with, and what cannot be started."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket

import pytest
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError

from helpers import config
from helpers.serve import command as serve
from helpers.serve import server

CARD = '{"threshold": 0.4}'  # of a model that has been evaluated


@pytest.fixture
def started(monkeypatch) -> list:
    """What Voila would have been started with."""
    calls = []

    def launch(given: list[str], config) -> None:
        calls.append((given, dict(os.environ), config))

    monkeypatch.setattr(server.Page, "launch_instance", launch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return calls


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_listens_on_this_machine_alone_and_says_where(started, port, capsys):
    assert serve.main(["--port", str(port)]) == 0
    given, environment, settings = started[0]
    assert "--Voila.ip=127.0.0.1" in given
    assert f"--Voila.port={port}" in given
    assert "--strip_sources=True" in given
    assert any(option.startswith("--MappingKernelManager.cull_idle_timeout=") for option in given)
    assert settings.Voila.tornado_settings["allow_remote_access"] is False
    assert settings.VoilaConfiguration.file_allowlist == []
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{port}/" in said
    assert "beyond this machine" not in said
    template = config.ROOT / "helpers/serve/voila/templates/page"
    assert environment["JUPYTER_PATH"] == str(config.ROOT / "helpers/serve")
    assert json.loads((template / "conf.json").read_text())["base_template"] == "lab"
    assert not re.search(r"https?://(?!example\.org)", "".join(file.read_text() for file in template.iterdir()))


def test_an_open_address_is_used_with_a_warning(started, port, capsys):
    assert serve.main(["--port", str(port), "--ip", "0.0.0.0"]) == 0
    assert "--Voila.ip=0.0.0.0" in started[0][0]
    assert started[0][2].Voila.tornado_settings["allow_remote_access"] is True
    assert "whoever reaches this address can use the page, and nothing is encrypted" in capsys.readouterr().out


def test_the_clone_s_model_comes_first_and_another_can_be_named(started, port, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "PRETRAINED", tmp_path / "pretrained")
    demo = tmp_path / "reports" / "demo" / "model"
    monkeypatch.setattr(config, "REPORTS", tmp_path / "reports")
    assert serve.main(["--port", str(port)]) == 2
    assert f"{demo} is not a model folder" in capsys.readouterr().err
    demo.mkdir(parents=True)
    (demo / "model.json").write_text('{"threshold": null}')
    assert serve.main(["--port", str(port)]) == 2
    assert f"{demo} has no threshold yet" in capsys.readouterr().err
    (demo / "model.json").write_text(CARD)
    serve.main(["--port", str(port)])
    for folder in (tmp_path / "pretrained", tmp_path / "other"):
        folder.mkdir()
        (folder / "model.json").write_text(CARD)
    serve.main(["--port", str(port)])
    serve.main(["--port", str(port), "--model", str(tmp_path / "other")])
    assert [environment["PNEUMONIA_MODEL"] for _, environment, _ in started] == [
        str(demo),
        str(tmp_path / "pretrained"),
        str(tmp_path / "other"),
    ]


@pytest.mark.parametrize(("card", "there", "named", "used"), [
    (CARD, True, False, "chest_xray"),
    ('{"threshold": 0.4, "phantoms": true}', True, False, None),
    ('{"threshold": 0.4, "phantoms": true}', True, True, "other"),
    (CARD, False, False, None),
])  # fmt: skip
def test_samples_come_from_the_reader_s_dataset(started, port, tmp_path, monkeypatch, card, there, named, used):
    monkeypatch.setattr(config, "DATA", tmp_path)
    for name in ["model", "other", *there * ["chest_xray"]]:
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "model.json").write_text(card)
    (tmp_path / "other" / "NORMAL").mkdir()
    (tmp_path / "other" / "NORMAL" / "a.jpeg").touch()
    words = ["--data", str(tmp_path / "other")] if named else []
    assert serve.main(["--port", str(port), "--model", str(tmp_path / "model"), *words]) == 0
    assert started[0][1]["PNEUMONIA_DATA"] == (str(tmp_path / used) if used else "")


def test_a_folder_without_a_model_and_a_port_in_use_are_refused(started, port, tmp_path, capsys):
    assert serve.main(["--port", str(port), "--model", str(tmp_path)]) == 2
    assert "is not a model folder" in capsys.readouterr().err
    for folder in (tmp_path / "none", tmp_path):  # not there; there, but without images of either class
        assert serve.main(["--port", str(port), "--data", str(folder)]) == 2
        assert f"there are no images in {folder}" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert serve.main(["--port", str(port)]) == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in capsys.readouterr().err
    assert not started


def test_there_are_no_more_kernels_than_visitors_allowed_even_at_once(monkeypatch):
    async def start(self, **given):
        await asyncio.sleep(0.01)  # all ask before the first has started
        self._kernels[given["name"]] = object()
        return given["name"]

    async def visits(kernels: server.Kernels, count: int) -> list:
        return await asyncio.gather(*(kernels.start_kernel(name=k) for k in range(count)), return_exceptions=True)

    monkeypatch.setattr(AsyncMappingKernelManager, "start_kernel", start)
    kernels = server.Kernels()
    answers = asyncio.run(visits(kernels, server.MOST_VISITORS + 3))
    assert answers[: server.MOST_VISITORS] == list(range(server.MOST_VISITORS))
    refused = answers[server.MOST_VISITORS :]
    assert [type(error) for error in refused] == [HTTPError] * 3
    assert {error.status_code for error in refused} == {503}
    del kernels._kernels[0]  # one has left
    assert asyncio.run(visits(kernels, 1)) == [0]
    kernels._kernels.clear()


def test_the_first_kernel_is_the_first_visitor_s_unless_it_was_ended(monkeypatch):
    async def start(self, **given):
        kernel = f"kernel {len(self._kernels)}"
        self._kernels[kernel] = object()
        return kernel

    async def visits(ended: bool) -> list[str]:
        kernels = server.Kernels()
        kernels.start_first()
        if ended:
            await kernels.first
            kernels._kernels["another"] = kernels._kernels.pop("kernel 0")
        given = [await kernels.start_kernel() for _ in range(2)]
        kernels._kernels.clear()
        return given

    monkeypatch.setattr(AsyncMappingKernelManager, "start_kernel", start)
    assert asyncio.run(visits(ended=False)) == ["kernel 0", "kernel 1"]
    assert asyncio.run(visits(ended=True)) == ["kernel 1", "kernel 2"]


def test_a_start_that_fails_takes_nobody_s_place(monkeypatch):
    async def start(self, **given):
        raise OSError("no memory")

    monkeypatch.setattr(AsyncMappingKernelManager, "start_kernel", start)
    kernels = server.Kernels()
    for _ in range(server.MOST_VISITORS + 1):
        with pytest.raises(OSError, match="no memory"):
            asyncio.run(kernels.start_kernel())


@pytest.mark.parametrize(("given", "base_url", "host"), [
    ("/", "/", None),
    ("/xray/", "/xray/", None),
    ("xray", "/xray/", None),
    ("/user/one/xray", "/user/one/xray/", None),
    ("https://clinic.example/xray", "/xray/", "clinic.example"),
    ("http://clinic.example:8080", "/", "clinic.example"),
])  # fmt: skip
def test_a_path_or_the_whole_address_behind_a_proxy_can_be_told(started, port, capsys, given, base_url, host):
    assert serve.main(["--port", str(port), "--base-url", given]) == 0
    words, _, settings = started[0]
    assert f"--Voila.base_url={base_url}" in words
    assert f"http://127.0.0.1:{port}{base_url} " in capsys.readouterr().out
    assert settings.Voila.tornado_settings["local_hostnames"] == ["localhost", *filter(None, [host])]
    assert settings.Voila.tornado_settings["xsrf_cookie_kwargs"] == {"path": base_url}


def test_settings_kernels_and_start_up_files_of_the_home_are_left_alone(started, port, tmp_path):
    serve.main(["--port", str(port)])
    environment, config = started[0][1:]
    assert environment["JUPYTER_NO_CONFIG"] == "1"
    assert environment["JUPYTER_DATA_DIR"] == environment["IPYTHONDIR"]
    assert config.Voila.config_file_paths == []
    assert not os.path.exists(environment["IPYTHONDIR"])  # noqa: PTH110 - ended, it leaves nothing
