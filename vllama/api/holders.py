"""Who holds a TCP port, as far as /proc tells: a listener, a connection that began at this port, or what is left of one. Linux.

The port of the server may be given to any outgoing connection of this machine. While that lives, and for a minute after its end,
nobody can listen there, SO_REUSEADDR or not: it would have to have been set for the connection, too.
"""

import ipaddress
import os
import pwd
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PASSING_S_MAX = 60.0  # as long as Linux keeps the end of a connection
COMMAND_CHARACTERS_MAX = 80
_LISTENS = "0A"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Holder:
    """`words`: "pid 7 (nc -l)"; "" where nothing is known. `listens`, or it is a connection. `passes`: no process has it any
    more, and it ends by itself."""

    words: str = ""
    listens: bool = False
    passes: bool = False


@dataclass(frozen=True, slots=True)
class _Socket:
    state: str
    peer: str
    user: int
    inode: str  # "0": no process has it any more


def holder(address: str, port: int) -> Holder:
    """Whoever keeps us from listening at this address and port."""
    found = sorted(_sockets(address, port), key=lambda each: (each.state != _LISTENS, each.inode == "0"))
    if not found:
        return Holder()
    first = found[0]
    if first.state == _LISTENS:
        return Holder(_process(first), listens=True)
    if first.inode != "0":
        return Holder(f"{_process(first)} for a connection to {first.peer}")
    return Holder(f"the end of a connection to {first.peer}", passes=True)


def _process(held: _Socket) -> str:
    """Other users' processes are closed to us: of them the user is told."""
    link_to = f"socket:[{held.inode}]"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is not ours to look at
            if any(os.readlink(link) == link_to for link in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"pid {process.name} ({command.strip()[:COMMAND_CHARACTERS_MAX]})"
    try:
        user = pwd.getpwuid(held.user).pw_name
    except KeyError:
        user = str(held.user)
    return f"a process of user {user}"


def _sockets(address: str, port: int) -> Iterator[_Socket]:
    """Those of this local port that stand in the way of a listener at this address."""
    ours = _unmapped(ipaddress.ip_address(address.partition("%")[0]))
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            local, number = _end(fields[1])
            if number == port and (local == ours or local.is_unspecified or ours.is_unspecified):
                peer, peers_port = _end(fields[2])
                shown = f"[{peer}]:{peers_port}" if peer.version == 6 else f"{peer}:{peers_port}"
                yield _Socket(fields[3], shown, int(fields[7]), fields[9])


def _end(text: str) -> tuple[_Address, int]:
    """One end of a connection, as /proc writes it: words of 32 bits in the machine's order, and the port."""
    words, _, port = text.partition(":")
    parts = [words[at : at + 8] for at in range(0, len(words), 8)]
    packed = b"".join(int(part, 16).to_bytes(4, sys.byteorder) for part in parts)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return _unmapped(ipaddress.ip_address(socket.inet_ntop(family, packed))), int(port, 16)


def _unmapped(address: _Address) -> _Address:
    """An IPv4 address that IPv6 wraps, as itself."""
    return getattr(address, "ipv4_mapped", None) or address
