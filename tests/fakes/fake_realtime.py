"""The fake engine's /v1/realtime: vLLM's events over a websocket, written out by hand so that the fake stays stdlib."""

import asyncio
import base64
import hashlib
import json

from fake_http import Exchange

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


async def serve(exchange: Exchange, model: str) -> None:
    """As vLLM: say that there is a session, take its model, then audio; `commit` tells what came."""
    key = exchange.headers["sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    reader = exchange.connection.upgraded = asyncio.StreamReader()
    head = f"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    exchange.transport.write(head.encode())
    exchange.status = 101
    _send(exchange, {"type": "session.created", "id": "sess-fake", "target": exchange.target})
    known, audio = False, 0
    while True:
        opcode, data = await _frame(reader)
        if opcode == CLOSE:
            _write(exchange, CLOSE, data)
            exchange.transport.close()
            return
        if opcode not in (TEXT, BINARY):
            continue
        event = json.loads(data)
        match event["type"]:
            case "session.update":
                known = event.get("model") == model
                if not known:
                    _send(exchange, {"type": "error", "code": "model_not_found"})
            case "input_audio_buffer.append" if known:
                audio += len(base64.b64decode(event["audio"]))
            case "input_audio_buffer.commit" if known:
                _send(
                    exchange, {"type": "transcription.done", "text": str(audio), "headers": exchange.headers}
                )
            case _:
                _send(exchange, {"type": "error", "code": "model_not_validated"})


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A whole message, or a control frame; the end of the connection is a close."""
    opcode, data = 0, b""
    while True:
        try:
            first, second = await reader.readexactly(2)
            size = second & 127
            if size >= 126:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            return CLOSE, b""
        part = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
        if first & 15 >= CLOSE:
            return first & 15, part
        opcode, data = opcode or first & 15, data + part
        if first & 128:
            return opcode, data


def _send(exchange: Exchange, event: dict) -> None:
    _write(exchange, TEXT, json.dumps(event).encode())


def _write(exchange: Exchange, opcode: int, data: bytes) -> None:
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    exchange.transport.write(bytes([128 | opcode]) + size + data)
