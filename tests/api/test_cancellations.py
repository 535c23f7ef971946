"""Ways in which a request does not end well. In each the ticket is released, the engine's connection is closed, and the
caller, if it is still there, is told in the way that is still open."""

import json
from threading import Thread

import pytest

from tests.api.caches import CHAT
from tests.api.rig import Rig, chat_body, error_in, error_of


@pytest.mark.trap(38)
def test_a_hang_up_in_the_middle_of_a_stream_closes_the_engines_connection(rig: Rig):
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
    rig.until(CHAT, in_flight=0)
    assert rig.stats(CHAT)["aborted"] == 1
    assert rig.chat(CHAT).status_code == 200


def test_a_hang_up_before_the_first_byte_closes_the_engines_connection(rig: Rig):
    rig.chat(CHAT).raise_for_status()
    with rig.hanging(chat_body(CHAT, "a")):
        rig.waits_at(CHAT, "a")
    rig.until(CHAT, in_flight=0)
    assert rig.stats(CHAT)["aborted"] == 1


def test_a_client_that_does_not_read_and_then_leaves_is_noticed(rig: Rig):
    rig.chat(CHAT).raise_for_status()
    endless = chat_body(CHAT, stream=True, max_tokens=30_000, ignore_eos=True)
    with rig.hanging(endless):
        rig.until(CHAT, in_flight=1)
    rig.until(CHAT, in_flight=0)


def test_a_hang_up_while_the_engine_starts_gives_the_wait_up(make_rig):
    rig = make_rig("hang_at_start")
    with rig.hanging(chat_body(CHAT)):
        rig.until(CHAT, waiting=1)
    rig.until(CHAT, waiting=0)
    rig.faults()
    assert rig.chat(CHAT).status_code == 200
    assert rig.view(CHAT)["in_flight"] == 0


def test_an_operator_who_forces_cuts_streams_off_with_an_event(rig: Rig):
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        commanding = Thread(target=rig.server.cli, args=("sleep", CHAT, "--force"))
        commanding.start()
        last = list(lines)[-1]
        commanding.join()
    error = error_in(json.loads(last))
    assert error["code"] == "stopped"
    assert CHAT in error["message"]
    assert rig.view(CHAT)["phase"] == "asleep"


def test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_event(rig: Rig):
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        rig.kill_engine(CHAT)
        last = list(lines)[-1]
    error = error_in(json.loads(last))
    assert error["code"] == "engine_lost"
    assert CHAT in error["message"]
    rig.until(CHAT, in_flight=0)


def test_an_engine_that_dies_before_the_first_byte_is_a_502(rig: Rig):
    rig.chat(CHAT).raise_for_status()
    answers = []
    asking = Thread(target=lambda: answers.append(rig.chat(CHAT, gate="a")))
    asking.start()
    rig.waits_at(CHAT, "a")
    rig.kill_engine(CHAT)
    asking.join()
    assert (answers[0].status_code, error_of(answers[0])["code"]) == (502, "engine_lost")
    assert CHAT in error_of(answers[0])["message"]
    assert rig.kinds(CHAT).count("EngineSpawned") == 1  # not sent twice
    rig.until(CHAT, in_flight=0)


def test_stopping_a_model_that_starts_refuses_those_who_wait(make_rig):
    rig = make_rig("hang_at_start")
    answers = []
    asking = Thread(target=lambda: answers.append(rig.chat(CHAT)))
    asking.start()
    rig.until(CHAT, waiting=1, phase="starting")
    assert rig.command("stop", CHAT).json()["phase"] == "stopped"
    asking.join()
    assert (answers[0].status_code, error_of(answers[0])["code"]) == (503, "stopped")
