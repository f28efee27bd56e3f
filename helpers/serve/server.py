"""Voila as the page needs it: bounded visitors, no other site, proxies in front. Importing reads JUPYTER_PATH."""

from __future__ import annotations

import asyncio

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RedirectHandler
from traitlets.config import Config
from voila.app import Voila, VoilaKernelWebsocketHandler, VoilaShutdownKernelHandler

from helpers.serve.command import HERE

MOST_VISITORS = 8  # at once; each has a kernel with TensorFlow, about half a gigabyte
_COOKIE = "xray-page"


class Kernels(AsyncMappingKernelManager):
    """The kernels of the page, no more than MOST_VISITORS of them, so that visitors cannot use up the memory."""

    starting = 0
    first: asyncio.Task[str] | None = None

    def start_first(self) -> None:
        """Start the first visitor's kernel, so that it imports TensorFlow while the browser opens."""
        self.first = asyncio.create_task(self.start_new(path=""))

    async def start_kernel(self, **given) -> str:  # type: ignore[override]
        """The id of the first kernel, or of a new one; HTTP status 503 where all are taken."""
        first, self.first = self.first, None
        if first and (kernel := await first) in self:  # it is not when nobody came, and it was idle for too long
            return kernel
        return await self.start_new(**given)

    async def start_new(self, **given) -> str:
        """As `start_kernel`, but never the first."""
        if len(self) + self.starting >= MOST_VISITORS:
            raise HTTPError(503, f"{MOST_VISITORS} people are on this page, and it takes no more; come back later.")
        self.starting += 1
        try:
            return await super().start_kernel(**given)
        finally:
            self.starting -= 1


class _Vouched(JupyterHandler):
    """A request may come from another host than the one it was sent to, where the page's own cookie vouches for it.

    So it is behind a proxy that rewrites the host. Browsers send that cookie with no request that another site has
    caused (SameSite=Strict).
    """

    def check_origin(self, origin: str = "") -> bool:
        return bool(self.get_signed_cookie(_COOKIE)) or super().check_origin(origin)


class Channels(_Vouched, VoilaKernelWebsocketHandler):
    """The connection of a visitor to their kernel."""


class Shutdown(_Vouched, VoilaShutdownKernelHandler):
    """The end of a visitor's kernel."""


OURS = {VoilaKernelWebsocketHandler: Channels, VoilaShutdownKernelHandler: Shutdown}


class Page(Voila):
    """Voila with our connections, below `base_url` and, for proxies that strip it, without."""

    def listen(self) -> None:
        """Serve until interrupted."""
        IOLoop.current().add_callback(self.kernel_manager.start_first)
        super().listen()

    def init_handlers(self) -> list:
        """What answers which address."""
        handlers = super().init_handlers()
        below: str = self.base_url
        if below != "/":
            handlers.append((below.rstrip("/"), RedirectHandler, {"url": below}))
            self.server_url = "/"
            handlers += super().init_handlers()
        return [(address, OURS.get(handler, handler), *more) for address, handler, *more in handlers]


def set_cookies(request: JupyterHandler, **given) -> None:
    """Before a kernel starts: set the cookie that vouches for a request; and Jupyter's own, which Voila never sets, and
    without which the page's last word, "end my kernel", is not believed."""
    request.set_signed_cookie(_COOKIE, "1", path=request.base_url, samesite="Strict", httponly=True)
    _ = request.xsrf_token  # reading the token sets the cookie


def settings(ip: str, base_url: str, host: str) -> Config:
    """What Voila cannot be told on its command line. At home, only requests to a name of this machine or to `host`, the
    proxy's, are answered: else another site, whose name was made to point here, would pass for the page itself (DNS
    rebinding)."""
    given = Config()
    given.VoilaConfiguration.multi_kernel_manager_class = Kernels
    given.VoilaConfiguration.prelaunch_hook = set_cookies
    given.VoilaConfiguration.file_allowlist = []  # the page, and no file beside the notebook
    given.VoilaExecutor.startup_timeout = 600  # seconds; a kernel answers when it has imported TensorFlow
    given.Voila.config_file_paths = []
    given.Voila.tornado_settings = {
        "allow_remote_access": ip not in HERE,
        "local_hostnames": ["localhost", *filter(None, [host])],
        "xsrf_cookie_kwargs": {"path": base_url},
    }
    return given
