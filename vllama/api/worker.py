"""A worker process of `vllama serve --workers N`: accepts connections, serves the data routes, and owns nothing but them.

Its tickets come from the system process, over a socket whose end is this process's end. It is started with the numbers of two
descriptors, that socket and a listening one, and with the server's pid.
"""

import asyncio
import functools
import logging
import os
import socket
import sys

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from vllama.actors import RemoteDesk
from vllama.api import routes
from vllama.api.access import Access, Cors, Keys
from vllama.api.fast.running import running
from vllama.api.garbage import spare_what_is_loaded
from vllama.api.handover import TAKEN, WorkerCommon, WorkerFront
from vllama.api.links import Links
from vllama.api.pace import Pace
from vllama.api.proxy import Edge, Proxy
from vllama.api.serving import Server
from vllama.api.stored import Responses
from vllama.api.tracing import tracing_of
from vllama.api.traffic import Traffic
from vllama.api.upstream import Upstreams
from vllama.host.workers import become_worker

COUNT_S = 0.5  # how late the system may have this process's traffic

log = logging.getLogger(__name__)


def data_app(edge: Edge, desk: RemoteDesk) -> Starlette:
    """The data routes behind the same rules of access as in the system process."""
    served = [
        Route(path, Proxy(edge, path, form=path in routes.FORM_PATHS), methods=["POST"])
        for path in (*routes.JSON_PATHS, *routes.FORM_PATHS)
        if path.encode() in TAKEN
    ]
    config = desk.config
    access = Middleware(Access, config=config, keys=keys_of(desk), control_off=desk.access.control_off)
    middleware = [access]
    if config.cors_origins:
        middleware.insert(0, Middleware(Cors, origins=config.cors_origins))
    app = Starlette(routes=served, middleware=middleware)
    app.router.redirect_slashes = False
    app.state.closing = asyncio.Event()
    return app


def keys_of(desk: RemoteDesk) -> Keys:
    """Who may ask, as the system has read it."""
    return Keys(desk.access.data_keys, desk.access.control_keys)


async def work(link: socket.socket, listener: socket.socket) -> None:
    """Serve until the system says that it is the end, or is not there any more."""
    desk = RemoteDesk(link, lost=_lost)
    await desk.begun.wait()
    links, traffic = Links(), Traffic()
    tracing = tracing_of(desk.config, lambda model: None)
    edge = Edge(desk, Upstreams(links), Responses(), Pace(), traffic, tracing)
    common = WorkerCommon(edge, links, keys_of(desk))
    protocol = functools.partial(WorkerFront, desk.hand_over, common)
    server = Server(data_app(edge, desk), protocol, [listener], on_start=desk.ready)
    async with running(common), asyncio.TaskGroup() as group:
        serving = group.create_task(server.run_until_told())
        ended = group.create_task(desk.ended.wait())
        counting = group.create_task(_count(traffic, desk))
        await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
        server.tell_to_end()
        await serving
        counting.cancel()
    _tell_traffic(traffic, desk)
    if tracing is not None:
        await asyncio.to_thread(tracing.close)


async def _count(traffic: Traffic, desk: RemoteDesk) -> None:
    """The system has this process's traffic, a moment late."""
    while True:
        await asyncio.sleep(COUNT_S)
        _tell_traffic(traffic, desk)


def _tell_traffic(traffic: Traffic, desk: RemoteDesk) -> None:
    cells, traffic.cells = traffic.cells, {}
    if cells:
        desk.counted(list(cells.items()))


def _lost(why: str) -> None:
    """Without the system nobody may be served: what is in flight holds no ticket any more."""
    os._exit(1)


def main() -> None:
    link, listener, parent = (int(word) for word in sys.argv[1:])
    become_worker(parent)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {os.getpid()}: %(message)s"
    )
    for noisy in ("uvicorn", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    spare_what_is_loaded()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(socket.socket(fileno=link), socket.socket(fileno=listener)))
    os._exit(0)  # nothing is left to do, and nothing may keep this process
