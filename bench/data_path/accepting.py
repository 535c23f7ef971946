"""Two processes that accept on one port, and say which of them did: `python accepting.py shared|each`.

`shared`: both wait on one inherited socket; `each`: each has a socket of its own (SO_REUSEPORT). Prints the port. A client gets
one byte, the number of the process.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys

import uvloop

PR_SET_PDEATHSIG = 1
prctl = ctypes.CDLL(None).prctl


class Teller(asyncio.Protocol):
    number = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(bytes([self.number]))


def listening(port: int, *, each: bool) -> socket.socket:
    sock = socket.socket()
    if each:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(2048)
    return sock


async def serve(number: int, sock: socket.socket) -> None:
    Teller.number = number
    server = await asyncio.get_running_loop().create_server(Teller, sock=sock)
    await server.serve_forever()


def main() -> None:
    each = sys.argv[1] == "each"
    first = listening(0, each=each)
    port = first.getsockname()[1]
    socks = [first, listening(port, each=True) if each else first]
    for number, sock in enumerate(socks):
        if os.fork() == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            uvloop.run(serve(number, sock))
    print(port, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
