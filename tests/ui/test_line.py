"""The page's line to the server: keys, cuts, losses, another server in the same place."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.api.caches import CHAT, EMBED, RERANK
from tests.ui.conftest import until
from tests.ui.line import Line

SEQ = "vllama.store.events.filter(event => event.seq).map(event => event.seq)"


def live(page: Page) -> None:
    page.wait_for_selector('body[data-state="live"]')


def lost(page: Page) -> None:
    page.wait_for_selector('body[data-state="lost"]')


def phase(page: Page, model: str, words: str) -> None:
    expect(page.locator(f'#models .vrow[data-row="{model}"] .chip')).to_contain_text(words)


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    made: list[Line] = []
    yield made
    for line in made:
        line.close()


def test_what_happened_while_the_line_was_cut_is_filled_in(rig, open_page, lines) -> None:
    line = Line(rig.server.port)
    lines.append(line)
    page = open_page(line.url)
    rig.command("stop", CHAT)
    until(page, f"{SEQ}.length > 0")
    line.cut()
    lost(page)
    expect(page.locator("#banner")).to_contain_text("What you see is as of")
    rig.chat(CHAT).raise_for_status()
    line.mend()
    live(page)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#notes")).to_contain_text(
        re.compile(r"Connected again: \d+ missed events are filled in")
    )
    phase(page, CHAT, "awake")
    numbers = page.evaluate(SEQ)
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_button_tries_again_at_once(rig, open_page, lines) -> None:
    line = Line(rig.server.port)
    lines.append(line)
    page = open_page(line.url)
    line.cut()
    lost(page)
    line.mend()
    page.evaluate("document.querySelector('#banner-retry').click()")
    live(page)


def test_more_than_the_journal_keeps_is_told_as_lost_and_the_state_is_right(
    make_rig, open_page, lines
) -> None:
    rig = make_rig(env={"VLLAMA_JOURNAL_LIFECYCLE_MAX": "100", "VLLAMA_JOURNAL_REQUESTS_MAX": "100"})
    line = Line(rig.server.port)
    lines.append(line)
    page = open_page(line.url)
    rig.command("stop", CHAT)
    until(page, f"{SEQ}.length > 0")
    line.cut()
    lost(page)
    rig.chat(EMBED)  # refused: it cannot
    rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "x"}).raise_for_status()
    for _ in range(60):
        rig.command("stop", RERANK)
    line.mend()
    live(page)
    expect(page.locator("#notes")).to_contain_text("events were lost")
    phase(page, EMBED, "awake")
    page.get_by_role("link", name="Events").click()
    expect(page.locator("#events-count")).to_be_visible()
    marks = page.evaluate(
        "vllama.store.events.filter(event => event.group === 'mark').map(event => event.words)"
    )
    assert len(marks) == 1
    assert "lost to this page" in marks[0]


def test_another_server_in_the_same_place_is_noticed_and_its_beginning_filled_in(
    vllama_server, fake_cache, open_page
) -> None:
    first = vllama_server(fake_cache, fake=True)
    page = open_page(first)
    page.locator(f'#models .vrow[data-row="{CHAT}"] .act').click()
    phase(page, CHAT, "awake")
    before = page.evaluate("vllama.store.events.length")
    first.end()
    lost(page)
    expect(page.locator("#banner")).to_contain_text("Trying again")
    page.get_by_role("link", name="Chat").click()
    page.locator("#chat-input").fill("hello")
    page.locator("#chat-input").press("Enter")
    expect(page.locator("#chat-log .error")).to_contain_text("does not answer")
    page.get_by_role("link", name="Overview").click()

    first.start()
    live(page)
    expect(page.locator("#notes")).to_contain_text("The server was started again")
    phase(page, CHAT, "stopped")
    assert page.evaluate("vllama.store.inFlight") == 0
    page.locator(f'#models .vrow[data-row="{CHAT}"] .act').click()
    phase(page, CHAT, "awake")
    events = page.evaluate("vllama.store.events.map(event => [event.seq, event.group])")
    (mark,) = [n for n, (_, group) in enumerate(events) if group == "mark"]
    assert mark >= before
    after = [seq for seq, _ in events[mark + 1 :]]
    assert after == list(range(1, len(after) + 1))
    page.get_by_role("link", name="Events").click()
    page.locator("#events-text").fill("no event says this")
    expect(page.locator("#events .vrow")).to_have_count(
        1
    )  # drawn anew by then; of several rows no text is asked
    expect(page.locator("#events .vrow")).to_contain_text("the server was started again")


def test_the_key_is_asked_for_kept_in_the_tab_and_sent_in_a_header(make_rig, open_page) -> None:
    rig = make_rig(env={"VLLAMA_API_KEY": "data", "VLLAMA_CONTROL_KEY": "secret"})
    page = open_page(rig.server, ready=False)
    expect(page.locator("#key")).to_be_visible()
    expect(page.locator("#key-message")).to_contain_text("control key")
    expect(page.locator("#key-input")).to_be_focused()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.type("with space")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_contain_text("printable ASCII")
    page.locator("#key-input").fill("data")
    page.keyboard.press("Enter")
    expect(page.locator("#key-message")).to_contain_text("The key did not open it")
    page.keyboard.press("Escape")
    expect(page.locator("#banner")).to_contain_text("control key")
    page.locator("#banner-retry").click()
    page.locator("#key-input").fill("secret")
    page.keyboard.press("Enter")
    live(page)
    expect(page.locator("#key")).to_be_hidden()
    expect(page.locator("#models .vrow")).to_have_count(3)
    page.reload()
    live(page)
    page.locator(f'#models .vrow[data-row="{CHAT}"] .act').click()
    phase(page, CHAT, "awake")
    page.get_by_role("link", name="Chat").click()
    page.locator("#chat-input").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-log article.assistant .said")).to_contain_text("Paris")
    assert not [url for url in asked if "secret" in url]
    assert page.evaluate("JSON.stringify(localStorage)").find("secret") == -1


def test_where_control_is_off_the_page_says_why(make_rig, browser) -> None:
    rig = make_rig(args=("--host", "0.0.0.0"))
    page = browser.new_page()
    try:
        page.goto(f"{rig.server.url}/ui")
        expect(page.locator("h1")).to_have_text("This page is off")
    finally:
        page.close()
