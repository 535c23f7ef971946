"""The listening socket: it accepts at once, and who holds a taken port is named."""

import asyncio
import os
import socket

import pytest

from vllama.api.listen import listen
from vllama.errors import ConfigError


def test_it_accepts_before_anything_serves():
    with listen("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname(), timeout=5):
        pass


def test_small_answers_do_not_wait_for_an_acknowledgement():
    async def main() -> int:
        connected: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            connected.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        sock = listen("127.0.0.1", 0)
        async with await asyncio.start_server(serve, sock=sock):
            with socket.create_connection(sock.getsockname(), timeout=5):
                return await connected

    assert asyncio.run(main()) == 1


def test_a_taken_port_names_its_holder():
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            listen("127.0.0.1", port)
    assert f"port {port}" in caught.value.message
    assert f"pid {os.getpid()} " in caught.value.message
    assert "--port" in caught.value.message
    assert "\n" not in caught.value.message


def test_an_address_that_is_not_ours_is_told_apart():
    with pytest.raises(ConfigError, match="--host"):
        listen("192.0.2.1", 0)


def test_a_name_that_nobody_knows_is_told_apart():
    with pytest.raises(ConfigError, match="--host"):
        listen("no.such.host.invalid", 0)
