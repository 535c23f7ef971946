"""The listening socket: it accepts at once, and who holds a taken port is named."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from vllama.api.listen import Taken, listen
from vllama.api.server import listen_to, once_passed
from vllama.config import VllamaConfig
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


def test_a_port_that_a_connection_began_at_names_whose_it_is():
    with socket.create_server(("127.0.0.1", 0)) as peer, socket.create_connection(peer.getsockname()) as ours:
        port, to = ours.getsockname()[1], peer.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", "::"):
            with pytest.raises(Taken) as caught:
                listen(host, port)
            message = caught.value.message
            assert message.startswith(f"port {port} on {host} is taken by pid {os.getpid()} (")
            assert (
                f") for a connection to 127.0.0.1:{to}; it is free once that has ended; or choose" in message
            )
            assert not caught.value.holder.passes
        listen("127.0.0.2", port).close()  # it stands in nobody's way there


def test_a_port_that_somebody_has_only_bound_is_told_apart():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Taken, match="neither listens nor is connected; choose another --port"):
            listen("127.0.0.1", bound.getsockname()[1])


def test_the_addresses_of_both_families_are_read():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        with pytest.raises(Taken, match=f"is taken by pid {os.getpid()} "):
            listen("::1", sock.getsockname()[1])
        listen("127.0.0.1", sock.getsockname()[1]).close()


@contextmanager
def left_of_a_connection() -> Iterator[tuple[int, Callable[[], None]]]:
    """A port at which a connection began whose process has closed it, and what ends the rest of it."""
    with socket.create_server(("127.0.0.1", 0)) as peer:
        ours = socket.create_connection(peer.getsockname())
        theirs, _ = peer.accept()

        def end() -> None:
            if theirs.fileno() >= 0:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                theirs.close()  # with a reset: nothing is kept of the connection

        port = ours.getsockname()[1]
        ours.close()
        try:
            yield port, end
        finally:
            end()


def test_the_end_of_a_connection_is_waited_for(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        with left_of_a_connection() as (port, end):
            tried = 0

            def listening() -> tuple[list[socket.socket], list[socket.socket]]:
                nonlocal tried
                tried += 1
                if tried == 3:
                    end()
                return [listen("127.0.0.1", port)], []

            socks, also = await once_passed(listening, asyncio.Event())
            assert (socks[0].getsockname()[1], also) == (port, [])
            socks[0].close()
            (said,) = (record.message for record in caplog.records)
            assert f"port {port} on 127.0.0.1 is taken by the end of a connection to 127.0.0.1:" in said
            assert said.endswith("it is free in 60 s at most: waiting for that")

    asyncio.run(main())


def test_who_is_told_to_end_waits_for_no_port():
    async def main() -> None:
        with left_of_a_connection() as (port, _):
            ended = asyncio.Event()
            ended.set()
            assert await once_passed(lambda: ([listen("127.0.0.1", port)], []), ended) == ([], [])

    asyncio.run(main())


def test_nobody_who_lives_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as peer, socket.create_connection(peer.getsockname()) as ours:

        def listening() -> tuple[list[socket.socket], list[socket.socket]]:
            return [listen("127.0.0.1", ours.getsockname()[1])], []

        with pytest.raises(Taken, match=f"pid {os.getpid()} "):
            asyncio.run(once_passed(listening, asyncio.Event()))


def test_of_two_ports_either_both_are_open_or_none():
    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as opened:
        free = listen("127.0.0.1", 0)
        port = free.getsockname()[1]
        free.close()
        config = VllamaConfig(port=port, ollama_port=taken.getsockname()[1], workers=2)
        with pytest.raises(Taken, match="--ollama-port"):
            listen_to(config, opened)
        listen("127.0.0.1", port).close()
