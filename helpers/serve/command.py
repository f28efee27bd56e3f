"""Serve notebook 07 as a page: `python -m helpers.serve`, or `make app`.

On this machine only unless told otherwise. Every visitor gets a kernel of their own, so nobody sees another's images;
closing the page ends it, and where the browser cannot say so, some idle minutes do.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from helpers import config, storage
from helpers.config import InputError

IDLE_MINUTES = 5
HERE = ("127.0.0.1", "localhost")
# What a kernel does before it is asked. A tenth of the time would go into looking for garbage among what is imported.
STARTUP = f"""import gc, sys
gc.set_threshold(100_000)
sys.path.insert(0, {str(config.ROOT)!r})
from helpers import page, plots
"""


def arguments(ip: str, port: int, base_url: str) -> list[str]:
    """What Voila is started with."""
    return [
        str(config.NOTEBOOKS / "07_predict.ipynb"),
        "--no-browser",
        f"--Voila.ip={ip}",
        f"--Voila.port={port}",
        f"--Voila.base_url={base_url}",
        "--Voila.port_retries=0",
        "--template=page",
        "--strip_sources=True",
        "--show_tracebacks=True",
        f"--MappingKernelManager.cull_idle_timeout={60 * IDLE_MINUTES}",
        "--MappingKernelManager.cull_interval=60",
    ]


def set_environment(model: str, data: str, home: str) -> None:
    """What the kernels are told, and Jupyter: its settings, templates and kernels are this project's, whatever lies in
    the home of who starts the page. `home` is an empty folder."""
    startup = Path(home) / "profile_default" / "startup" / "page.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(STARTUP, encoding="utf-8")
    os.environ |= {
        "PNEUMONIA_MODEL": model,
        "PNEUMONIA_DATA": data,
        "JUPYTER_PATH": str(Path(__file__).parent),
        "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_DATA_DIR": home,
        "IPYTHONDIR": home,
    }


def find_model(named: str | None) -> tuple[Path, dict]:
    """The model folder to serve, and its card. InputError where it cannot be served."""
    demo = config.REPORTS / "demo" / "model"
    model = Path(named) if named else config.PRETRAINED if config.PRETRAINED.is_dir() else demo
    card = storage.read_json(model / "model.json")
    if not card:
        raise InputError(
            f"{model} is not a model folder: it has no model.json that can be read. Name one with --model."
        )
    if card.get("threshold") is None:
        raise InputError(f"{model} has no threshold yet: name a model that notebook 05 has evaluated.")
    return model.resolve(), card


def find_data(named: str | None, card: dict) -> str:
    """The dataset to take samples from, "" where phantoms are drawn. InputError where the one named has no images."""
    data = Path(named) if named else config.DATA / "chest_xray"
    if named:
        from helpers import dataset  # seconds that the page need not wait for

        if not (data.is_dir() and any(dataset.image_files(data))):
            raise InputError(f"there are no images in {data}: name a folder that holds NORMAL and PNEUMONIA.")
    return str(data.resolve()) if data.is_dir() and (named or not card.get("phantoms")) else ""


def check_port(ip: str, port: int) -> None:
    """InputError where nobody can listen there."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ip, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} on {ip} cannot be used ({error}); try --port 8870.") from error


def main(given: list[str] | None = None) -> int:
    """The command; serves until it is interrupted. Exit status 2 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--ip", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets everyone in")
    parser.add_argument("--model", help="model folder; data/pretrained, or where that is missing the demo run's")
    parser.add_argument("--data", help="dataset to take samples from; data/chest_xray, where that is there")
    parser.add_argument(
        "--base-url", default="/", help="behind a proxy: the path, /xray/, or the whole address, https://host/xray/"
    )
    chosen = parser.parse_args(given)
    address = urlsplit(chosen.base_url)
    base_url = f"/{address.path.strip('/')}/".replace("//", "/")
    try:
        model, card = find_model(chosen.model)
        data = find_data(chosen.data, card)
        check_port(chosen.ip, chosen.port)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.ip not in HERE:
        print("Listening beyond this machine: whoever reaches this address can use the page, and nothing is encrypted.")
    where = f"http://{chosen.ip}:{chosen.port}{base_url}"
    print(f"The page: {where}  (the first answer takes some seconds; ctrl-C ends it)", flush=True)
    with tempfile.TemporaryDirectory(prefix="xray-page-") as home:
        set_environment(str(model), data, home)
        from helpers.serve import server  # Voila reads the environment when it is imported

        server.Page.launch_instance(
            arguments(chosen.ip, chosen.port, base_url),
            config=server.settings(chosen.ip, base_url, address.hostname or ""),
        )
    return 0
