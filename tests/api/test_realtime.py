"""The websocket route over a real server and a fake engine: carried through both ways, under a ticket, and refused in words."""

import base64
import json
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.api.caches import CHAT
from tests.api.rig import BOUND_S, Rig, error_in


@contextmanager
def session(rig: Rig, query: str = "", **headers: str):
    url = f"ws://127.0.0.1:{rig.server.port}/v1/realtime{query}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect(url, additional_headers=sent, proxy=None, open_timeout=BOUND_S) as socket:
        yield socket


def said(socket) -> dict:
    return json.loads(socket.recv(timeout=BOUND_S))


def say(socket, **event) -> None:
    socket.send(json.dumps(event))


def speak(socket, sound: bytes) -> dict:
    say(socket, type="input_audio_buffer.append", audio=base64.b64encode(sound).decode())
    say(socket, type="input_audio_buffer.commit")
    return said(socket)


def refused(rig: Rig, query: str = "", **headers: str) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as caught, session(rig, query, **headers):
        pass
    response = caught.value.response
    return response.status_code, error_in(json.loads(response.body))


@pytest.mark.parametrize("name", [CHAT, "CHAT"])
def test_a_session_whose_model_is_in_the_query(rig: Rig, name: str):
    with session(
        rig, f"?intent=transcription&model={name}", X_Custom="kept", Authorization="Bearer x"
    ) as socket:
        opened = said(socket)
        assert (opened["id"], opened["target"]) == (
            "sess-fake",
            f"/v1/realtime?intent=transcription&model={name}",
        )
        say(socket, type="session.update", model=name)
        done = speak(socket, b"x" * 300_000)
        assert (done["type"], done["text"]) == ("transcription.done", "300000")
        assert done["headers"]["x-custom"] == "kept"
        assert "authorization" not in done["headers"]
        assert rig.view(CHAT)["in_flight"] == 1
    rig.until(CHAT, in_flight=0, phase="awake")


@pytest.mark.parametrize("name", [CHAT, "chat"])
def test_a_session_whose_model_comes_in_the_first_update(rig: Rig, name: str):
    """As vLLM's own example speaks: it waits for `session.created` before it names the model."""
    with session(rig) as socket:
        assert said(socket)["type"] == "session.created"
        say(socket, type="input_audio_buffer.commit")
        assert said(socket)["code"] == "model_not_validated"
        say(socket, type="session.update", model=name)
        assert speak(socket, b"abc")["text"] == "3"  # the engine's own session.created is not heard twice
    rig.until(CHAT, in_flight=0)


def test_what_cannot_be_is_refused_by_a_status_or_by_an_event(make_rig):
    rig = make_rig(f"{CHAT}:die_at_start")
    assert refused(rig, "?model=tiny/none")[1]["code"] == "model_not_found"
    assert refused(rig, "?model=tiny/none")[0] == 404
    assert refused(rig, f"?model={CHAT}&model={CHAT}")[0] == 400
    assert refused(rig, f"?model={CHAT}")[0] == 502
    with session(rig) as socket:
        said(socket)
        say(socket, type="session.update", model="tiny/none")
        assert said(socket)["code"] == "model_not_found"
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=BOUND_S)
        assert caught.value.rcvd.code == 1008


def test_a_page_of_another_site_opens_no_session(make_rig):
    """A browser asks nobody before it opens a websocket, and lets the page read it."""
    rig = make_rig(env={"VLLAMA_CORS_ORIGINS": "http://good.example", "VLLAMA_API_KEY": "k"})
    key = {"Authorization": "Bearer k"}
    assert refused(rig, f"?model={CHAT}")[0] == 401
    status, error = refused(rig, f"?model={CHAT}", Origin="http://evil.example", **key)
    assert (status, error["code"]) == (403, "forbidden")
    with session(rig, f"?model={CHAT}", Origin="http://good.example", **key) as socket:
        assert said(socket)["type"] == "session.created"


def test_an_operator_ends_a_session_and_is_told_about(rig: Rig):
    with session(rig, f"?model={CHAT}") as socket:
        said(socket)
        assert rig.command("sleep", CHAT, force=True).json()["phase"] == "asleep"
        assert said(socket)["code"] == "stopped"
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=BOUND_S)
        assert caught.value.rcvd.code == 1013


def test_an_engine_that_dies_ends_the_session_with_a_word(rig: Rig):
    with session(rig, f"?model={CHAT}") as socket:
        said(socket)
        rig.kill_engine(CHAT)
        assert said(socket)["code"] == "engine_lost"
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=BOUND_S)
        assert caught.value.rcvd.code == 1011
    rig.until(CHAT, phase="stopped")  # a request that crosses the death itself may still be told of it
    rig.chat(CHAT).raise_for_status()


def test_a_client_that_leaves_while_the_engine_starts_leaves_nothing_behind(make_rig):
    rig = make_rig("hang_at_start")
    with session(rig) as socket:
        said(socket)
        say(socket, type="session.update", model=CHAT)
        rig.until(CHAT, waiting=1)
    rig.until(CHAT, waiting=0)
