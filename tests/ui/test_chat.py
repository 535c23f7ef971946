"""The chat: it streams, shows what it waits for, can be stopped, and says what went wrong."""

import json
import re

from playwright.sync_api import Page, expect

from tests.api.caches import CHAT, EMBED

QUESTION = "What is the capital of France?"


def say(page: Page, words: str) -> None:
    page.locator("#chat-input").fill(words)
    page.locator("#chat-input").press("Enter")


def answer(page: Page):
    return page.locator("#chat-log article.assistant").last


def test_an_answer_streams_and_says_how_the_model_was_found(rig, open_page) -> None:
    page = open_page(rig.server, "chat")
    expect(page.locator("#chat-model")).to_have_value(CHAT)
    expect(page.locator("#chat-log .empty")).to_be_visible()
    say(page, QUESTION)
    expect(answer(page).locator(".said")).to_have_text("The capital of France is Paris.")
    expect(page.locator("#chat-state")).to_contain_text(f"{CHAT} was started")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "And of Spain?")
    body = json.loads(asked.value.post_data or "")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    expect(page.locator("#chat-state")).to_contain_text(f"{CHAT} was awake")
    expect(page.locator("#chat-log article")).to_have_count(4)
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-log article")).to_have_count(0)


def test_what_it_waits_for_is_shown_and_the_wait_can_be_left(rig, open_page) -> None:
    rig.faults("hang_at_start")
    page = open_page(rig.server, "chat")
    say(page, QUESTION)
    expect(page.locator("#chat-state")).to_contain_text(re.compile(rf"{CHAT} is starting · [0-9.]+ s"))
    page.locator("#chat-stop").click()
    expect(page.locator("#chat-state")).to_have_text("Stopped.")
    expect(page.locator("#chat-send")).to_be_visible()
    rig.until(CHAT, waiting=0)
    rig.faults()
    say(page, QUESTION)
    expect(answer(page)).to_contain_text("Paris")


def test_an_answer_can_be_cut_off_and_what_came_stays(rig, open_page) -> None:
    rig.chat(CHAT).raise_for_status()
    rig.faults("gated")
    page = open_page(rig.server, "chat")
    say(page, QUESTION)
    rig.waits_at(CHAT, "all")
    rig.engine(CHAT, "POST", "/fake/gate?name=all&tokens=2")
    expect(answer(page).locator(".said")).to_have_text("The capital")
    page.locator("#chat-input").press("Escape")
    expect(page.locator("#chat-state")).to_have_text("Stopped.")
    rig.until(CHAT, in_flight=0)
    expect(answer(page).locator(".said")).to_have_text("The capital")


def test_a_model_that_cannot_chat_says_what_it_does(rig, open_page) -> None:
    page = open_page(rig.server, "chat")
    page.locator("#chat-model").select_option(EMBED)
    expect(page.locator("#chat-state")).to_contain_text(f"{EMBED} makes embeddings: it cannot chat")
    expect(page.locator("#chat-input")).to_be_disabled()
    expect(page.locator("#chat-send")).to_be_disabled()
    page.locator("#chat-model").select_option(CHAT)
    expect(page.locator("#chat-send")).to_be_enabled()


def test_an_engine_that_dies_in_the_middle_leaves_its_words_and_an_error(rig, open_page) -> None:
    rig.chat(CHAT).raise_for_status()
    rig.faults("die_mid_stream")
    page = open_page(rig.server, "chat")
    say(page, QUESTION)
    expect(answer(page).locator(".error")).to_contain_text(CHAT)
    expect(answer(page).locator(".said")).to_contain_text("The")
    expect(page.locator("#chat-send")).to_be_visible()


def test_a_model_is_taken_to_the_chat_from_its_panel(rig, open_page) -> None:
    page = open_page(rig.server)
    page.locator(f'#models .vrow[data-row="{CHAT}"] .model').click()
    page.locator("#panel-chat").click()
    expect(page.locator("#view-chat")).to_be_visible()
    expect(page.locator("#chat-model")).to_have_value(CHAT)
    expect(page.locator("#panel")).to_be_hidden()
