"""Serve notebook 07 as a page: `python -m helpers.serve`, or `make app`.

On this machine only unless told otherwise. Every visitor gets a kernel of their own, so nobody sees another's images;
closing the page ends it, and where the browser cannot say so, some idle minutes do.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError, RequestHandler
from traitlets.config import Config

from helpers import config, dataset, storage

IDLE_MINUTES = 5
MOST_VISITORS = 8  # at once; each has a kernel with TensorFlow, about half a gigabyte
HERE = ("127.0.0.1", "localhost")


class Kernels(AsyncMappingKernelManager):
    """The kernels of the page, no more than MOST_VISITORS of them, so that visitors cannot use up the memory."""

    starting = 0

    async def start_kernel(self, **given) -> str:
        """A new kernel's id; HTTP status 503 where all are taken."""
        if len(self) + self.starting >= MOST_VISITORS:
            raise HTTPError(503, f"{MOST_VISITORS} people are on this page, and it takes no more; come back later.")
        self.starting += 1
        try:
            return await super().start_kernel(**given)
        finally:
            self.starting -= 1


def set_cookie(request: RequestHandler, **_) -> None:
    """Before a kernel starts: set the cookie without which the page's last word, "end my kernel", is not believed.

    Jupyter's protection against requests from other sites asks for it, and Voila alone never sets it.
    """
    _ = request.xsrf_token  # reading the token sets the cookie


def settings(ip: str) -> Config:
    """What Voila cannot be told on its command line. At home, only requests to a name of this machine are answered:
    else another site, whose name was made to point here, would pass for the page itself (DNS rebinding)."""
    given = Config()
    given.VoilaConfiguration.multi_kernel_manager_class = Kernels
    given.VoilaConfiguration.prelaunch_hook = set_cookie
    given.VoilaConfiguration.file_allowlist = []  # the page, and no file beside the notebook
    given.Voila.tornado_settings = {"allow_remote_access": ip not in HERE}
    return given


def arguments(ip: str, port: int) -> list[str]:
    """What Voila is started with."""
    return [
        str(config.NOTEBOOKS / "07_predict.ipynb"),
        "--no-browser",
        f"--Voila.ip={ip}",
        f"--Voila.port={port}",
        "--Voila.port_retries=0",
        "--template=page",
        "--strip_sources=True",
        "--show_tracebacks=True",
        f"--MappingKernelManager.cull_idle_timeout={60 * IDLE_MINUTES}",
        "--MappingKernelManager.cull_interval=60",
    ]


def main(given: list[str] | None = None) -> int:
    """The command; serves until it is interrupted. Exit status 2 where the port cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--ip", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets everyone in")
    parser.add_argument("--model", help="model folder; data/pretrained, or where that is missing the demo run's")
    parser.add_argument("--data", help="dataset to take samples from; data/chest_xray, where that is there")
    chosen = parser.parse_args(given)
    demo = config.REPORTS / "demo" / "model"
    model = Path(chosen.model) if chosen.model else config.PRETRAINED if config.PRETRAINED.is_dir() else demo
    card = storage.read_json(model / "model.json")
    if not card:
        print(
            f"{model} is not a model folder: it has no model.json that can be read. Name one with --model.",
            file=sys.stderr,
        )
        return 2
    if card.get("threshold") is None:
        print(f"{model} has no threshold yet: name a model that notebook 05 has evaluated.", file=sys.stderr)
        return 2
    os.environ["PNEUMONIA_MODEL"] = str(model.resolve())
    data = Path(chosen.data) if chosen.data else config.DATA / "chest_xray"
    if chosen.data and not (data.is_dir() and any(dataset.image_files(data))):
        print(f"there are no images in {data}: name a folder that holds NORMAL and PNEUMONIA.", file=sys.stderr)
        return 2
    if data.is_dir() and (chosen.data or not card.get("phantoms")):
        os.environ["PNEUMONIA_DATA"] = str(data.resolve())
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((chosen.ip, chosen.port))
        except (OSError, OverflowError) as error:
            print(f"port {chosen.port} on {chosen.ip} cannot be used ({error}); try --port 8870.", file=sys.stderr)
            return 2
    if chosen.ip not in HERE:
        print("Listening beyond this machine: whoever reaches this address can use the page, and nothing is encrypted.")
    print(f"The page: http://{chosen.ip}:{chosen.port}/  (first answer in about a minute; ctrl-C ends it)", flush=True)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(
        [str(config.ROOT / "helpers" / "page"), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    )
    from voila.app import main as voila  # reads JUPYTER_PATH when it is imported

    voila(arguments(chosen.ip, chosen.port), config=settings(chosen.ip))
    return 0
