"""What a person does with the page: each view, each button, by pointer and by keys."""

import re
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Page, expect
from serving import wait_until

from tests.acceptance.gpu_rig import GIB, A, B
from tests.api.caches import CHAT, EMBED, make_cache
from tests.ui.conftest import BOUND_MS, HEIGHTS


def row(page: Page, model: str):
    return page.locator(f'#models .vrow[data-row="{model}"]')


def phase(page: Page, model: str, words: str) -> None:
    expect(row(page, model).locator(".chip")).to_contain_text(words)


def figure(page: Page, name: str, value: str) -> None:
    box = page.locator("#stats > div", has=page.locator("dt", has_text=re.compile(f"^{name}$")))
    expect(box.locator("b")).to_have_text(value)


def test_the_overview_shows_every_model_and_starts_sleeps_wakes_them(rig, open_page) -> None:
    page = open_page(rig.server)
    expect(page.locator("#models .vrow")).to_have_count(3)
    phase(page, CHAT, "stopped")
    act = row(page, CHAT).locator(".act")
    for label, then in (("Start", "awake"), ("Sleep", "asleep, level 2"), ("Wake", "awake")):
        expect(act).to_have_text(label)
        act.click()
        phase(page, CHAT, then)
    figure(page, "Awake", "1")
    card = page.locator("article.device", has_text="cpu")
    expect(card.locator(".holders")).to_contain_text(CHAT)
    expect(card.locator(".stack")).to_have_attribute("aria-label", re.compile(r"awake [1-9]"))


DRAWN = """
async (name) => {
  const { palette } = await import("/ui/paint.js");
  const row = document.querySelector(`#models .vrow[data-row="${name}"] canvas`);
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [row.width, row.height];
  const c = copy.getContext("2d", { willReadFrequently: true });
  const rgb = (x, y) => c.getImageData(x, y, 1, 1).data.slice(0, 3).join();
  const phases = {};
  for (const key of ["awake", "asleep"]) {
    c.fillStyle = palette()[key];
    c.fillRect(0, 0, 1, 1);
    phases[rgb(0, 0)] = key;
  }
  c.clearRect(0, 0, row.width, row.height);
  c.drawImage(row, 0, 0);
  const found = [];
  for (let x = 0; x < row.width; x += 1) {
    const key = phases[rgb(x, row.height - 6)];
    if (key && key !== found.at(-1)) found.push(key);
  }
  return found.join();
}
"""


def test_the_timeline_is_drawn_with_each_phase_in_its_place(rig, open_page) -> None:
    page = open_page(rig.server)
    page.locator("#window").select_option(index=0)
    rig.chat(CHAT).raise_for_status()
    assert wait_until(lambda: page.evaluate(DRAWN, CHAT) == "awake", BOUND_MS / 1000)
    rig.command("sleep", CHAT)
    assert wait_until(lambda: page.evaluate(DRAWN, CHAT) == "awake,asleep", BOUND_MS / 1000)
    rig.chat(CHAT).raise_for_status()
    assert wait_until(lambda: page.evaluate(DRAWN, CHAT) == "awake,asleep,awake", BOUND_MS / 1000)
    assert page.evaluate(DRAWN, EMBED) == ""
    segments = "name => vllama.store.models.get(name).segments.map(segment => segment.phase).join(' ')"
    shown = page.evaluate(segments, CHAT)
    happened = [
        event["to"]
        for event in rig.server.events()
        if event["kind"] == "PhaseChanged" and event["actor"] == CHAT
    ]
    assert shown.endswith(" ".join(happened))


def test_with_workers_the_page_is_the_same(make_rig, open_page) -> None:
    rig = make_rig(args=("--workers", "2"))
    page = open_page(rig.server)
    row(page, CHAT).locator(".act").click()
    phase(page, CHAT, "awake")
    page.get_by_role("link", name="Chat").click()
    page.locator("#chat-input").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-log article.assistant .said")).to_contain_text("Paris")
    page.get_by_role("link", name="Overview").click()
    row(page, CHAT).locator(".act").click()
    phase(page, CHAT, "asleep, level 2")


def test_a_message_sent_before_the_chat_was_drawn_is_sent(rig, open_page) -> None:
    page = open_page(rig.server)
    page.evaluate(
        """() => {
            window.requestAnimationFrame = () => 0; // no drawing from here on
            return new Promise(done => setTimeout(done, 50));
        }"""
    )
    page.get_by_role("link", name="Chat").click()
    page.locator("#chat-input").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-log article.user .said")).to_have_text("What is the capital of France?")


def test_where_costs_decide_the_reason_says_what_was_weighed(make_gpu_rig, open_page) -> None:
    rig = make_gpu_rig(4 * GIB, models={A: 2 * GIB, B: 2 * GIB}, VLLAMA_POLICY="cost")
    page = open_page(rig.server)
    rig.ok(A, B)
    row(page, A).locator(".mark-victim").focus()
    expect(page.locator("#tip")).to_contain_text(re.compile(r"It cost the least: .* to come back"))


def test_the_panel_of_a_model_has_every_command_its_facts_its_reasons_and_its_log(rig, open_page) -> None:
    page = open_page(rig.server)
    row(page, CHAT).locator(".model").click()
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text(CHAT)
    expect(page.locator("#panel-log-none")).to_contain_text("no log yet")
    expect(page.locator("#panel-whys-none")).to_be_visible()
    for button, then in (
        ("#panel-start", "awake"),
        ("#panel-sleep1", "asleep, level 1"),
        ("#panel-start", "awake"),
        ("#panel-sleep2", "asleep, level 2"),
        ("#panel-stop", "stopped"),
        ("#panel-start", "awake"),
    ):
        page.locator(button).click()
        expect(page.locator("#panel-phase")).to_contain_text(then)
    expect(panel.locator(".facts")).to_contain_text(f"port {rig.view(CHAT)['port']}")
    expect(page.locator("#panel-whys")).to_contain_text("came up in")
    expect(page.locator("#panel-log")).to_contain_text("Application startup complete")
    rig.chat(CHAT).raise_for_status()
    expect(page.locator("#panel-log")).to_contain_text('"POST /v1/chat/completions HTTP/1.1" 200')
    page.locator("#panel-close").click()
    expect(panel).to_be_hidden()


def test_a_command_that_fails_says_so_where_it_was_given(make_rig, open_page) -> None:
    rig = make_rig("die_at_start", env={"VLLAMA_BACKOFF_S": "0"})
    page = open_page(rig.server)
    row(page, CHAT).locator(".act").click()
    expect(page.locator("#notes .error")).to_contain_text(CHAT)
    row(page, CHAT).locator(".model").click()
    page.locator("#panel-start").click()
    expect(page.locator("#panel-said")).to_contain_text("Engine core initialization failed")


def test_a_swap_is_seen_with_its_reason_on_hover_and_on_focus(make_gpu_rig, open_page) -> None:
    rig = make_gpu_rig(4 * GIB, models={A: 2 * GIB, B: 2 * GIB})
    page = open_page(rig.server)
    expect(page.locator("#swaps-empty")).to_be_visible()
    rig.ok(A, B)
    expect(page.locator("#swaps li")).to_have_count(1)
    expect(page.locator("#swaps li")).to_contain_text("cuda:0 was")
    figure(page, "Swaps", "1")
    tip = page.locator("#tip")
    victim = row(page, A).locator(".mark-victim")
    victim.hover()
    expect(tip).to_contain_text(f"{A} was put to sleep at level 2 for {B}")
    expect(tip).to_contain_text(re.compile(r"cuda:0 was .* short"))
    expect(tip).to_contain_text(re.compile(r"It freed .* GiB after"))
    page.mouse.move(1, 1)
    expect(tip).to_be_hidden()
    for mark in (victim, row(page, B).locator(".mark-cause"), page.locator("#swaps .why")):
        mark.focus()
        expect(tip).to_be_visible()
        expect(tip).to_contain_text(f"for {B}")
        assert mark.get_attribute("aria-describedby") == "tip"
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()


def test_each_device_has_its_bar_and_its_hour(make_gpu_rig, open_page) -> None:
    rig = make_gpu_rig(4 * GIB, 8 * GIB, models={A: 2 * GIB, B: 2 * GIB})
    rig.ok(A)
    rig.asleep(A)
    page = open_page(rig.server)
    cards = page.locator("article.device")
    expect(cards).to_have_count(4)  # two GPUs, copies in the host's RAM, requests
    told = [cards.nth(n).locator(".stack").get_attribute("aria-label") or "" for n in range(2)]
    assert any(re.search(r"asleep [1-9]\d* MiB", words) for words in told), told
    chart = cards.first.locator(".chart")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: "))
    expect(cards.first.locator(".readout")).to_be_visible()
    page.keyboard.press("Escape")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"^now: "))


def test_requests_in_flight_and_waiting_are_counted(rig, open_page) -> None:
    rig.chat(CHAT).raise_for_status()
    rig.faults("slow_start_s=600")
    page = open_page(rig.server)
    with ThreadPoolExecutor(1) as pool, rig.stream(CHAT, gate="open") as (_, lines):
        next(lines)
        waits = pool.submit(rig.http.post, "/v1/embeddings", json={"model": EMBED, "input": "x"})
        figure(page, "In flight", "1")
        figure(page, "Waiting", "1")
        expect(row(page, EMBED).locator(".asks")).to_have_text("1 waiting")
        row(page, CHAT).locator(".model").click()
        expect(page.locator("#panel-asks li")).to_have_count(1)
        page.keyboard.press("Escape")
        rig.command("stop", EMBED)
        assert waits.result().status_code == 503
        rig.let(CHAT, "open")
        list(lines)
    figure(page, "In flight", "0")
    figure(page, "Waiting", "0")


def test_events_come_live_and_are_filtered_paused_and_opened(rig, open_page) -> None:
    page = open_page(rig.server, "events")
    expect(page.locator("#events-empty, #events .vrow").first).to_be_visible()
    rig.command("stop", EMBED)
    rig.chat(CHAT, headers={"X-Request-Id": "<img src=x onerror=alert(1)>"}).raise_for_status()
    rows = page.locator("#events .vrow")
    expect(rows.filter(has_text="has ended")).to_have_count(1)
    expect(rows.filter(has_text="<img src=x onerror=alert(1)>").first).to_be_visible()
    assert page.locator("#main img").count() == 0

    for group in ("Phases", "Requests", "Problems"):
        page.locator("#events-groups").get_by_label(group).uncheck()
    expect(rows.filter(has_text="CommandAnswered").first).to_be_visible()
    expect(rows.filter(has_text="PhaseChanged")).to_have_count(0)
    page.locator("#events-groups").get_by_label("Phases").check()
    page.locator("#events-model").select_option(CHAT)
    expect(rows.filter(has_text=EMBED)).to_have_count(0)
    page.locator("#events-text").fill("is awake")
    expect(rows).to_have_count(1)
    page.locator("#events-text").fill("nothing says this")
    expect(page.locator("#events-empty")).to_have_text("No event fits the filters.")
    page.locator("#events-text").fill("")

    page.locator("#events-pause").click()
    rig.command("sleep", CHAT)
    expect(page.locator("#events-count")).to_contain_text("newer while paused")
    expect(rows.filter(has_text="is asleep")).to_have_count(0)
    page.locator("#events-pause").click()
    expect(rows.filter(has_text="is asleep").first).to_be_visible()

    rows.filter(has_text="is asleep").locator("button").click()
    expect(page.locator("#event-json")).to_contain_text('"kind": "PhaseChanged"')
    page.keyboard.press("Escape")
    page.locator("#event-close").click()
    expect(page.locator("#event-detail")).to_be_hidden()


def test_the_scheme_is_the_systems_until_another_is_chosen_and_that_is_kept(rig, open_page) -> None:
    page = open_page(rig.server, scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Use the light scheme").click()
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == light
    expect(page.get_by_role("button", name="Use the dark scheme")).to_be_visible()


def test_all_of_it_can_be_done_by_keys(rig, open_page) -> None:
    page = open_page(rig.server)
    focused = "document.activeElement.closest('.vrow')?.dataset.row ?? document.activeElement.textContent"
    expect(page.locator("#models .vrow")).to_have_count(3)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.model')"):
            break
    names = page.locator("#models .vrow").evaluate_all("rows => rows.map(row => row.dataset.row)")
    assert page.evaluate(focused) == names[0]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == names[1]
    page.keyboard.press("End")
    assert page.evaluate(focused) == names[-1]
    page.keyboard.press("Home")
    assert page.evaluate(focused) == names[0]
    page.keyboard.press("Tab")  # to its button
    assert page.evaluate("document.activeElement.textContent") == "Start"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#panel-name")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#panel-close")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#panel-start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#panel-phase")).to_contain_text("awake")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.evaluate("document.activeElement.matches('.model')")
    page.get_by_role("link", name="Chat").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#view-chat")).to_be_visible()


def test_a_cache_without_models_says_how_one_gets_there(vllama_server, tmp_path, open_page) -> None:
    (tmp_path / "empty").mkdir()
    page = open_page(vllama_server(tmp_path / "empty", fake=True))
    expect(page.locator("#models-empty")).to_contain_text(str(tmp_path / "empty"))
    page.get_by_role("link", name="Events").click()
    expect(page.locator("#view-events")).to_be_visible()
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#chat-state")).to_have_text("There is no model to chat with yet.")
    expect(page.locator("#chat-send")).to_be_disabled()


def test_nothing_is_wider_than_the_window_whatever_names_are_long(vllama_server, tmp_path, open_page) -> None:
    long = "an-organization-with-a-name/" + "a-model-of-a-name-that-does-not-end-" * 3 + "AWQ"
    odd = "x/<img src=x onerror=alert(1)>"
    cache = make_cache(tmp_path / "hub", dict.fromkeys((long, odd), "Qwen3ForCausalLM"))
    page = open_page(vllama_server(cache, fake=True))
    expect(page.locator("#models .vrow")).to_have_count(2)
    for width, height in HEIGHTS.items():
        page.set_viewport_size({"width": width, "height": height})
        for view in ("Events", "Chat", "Overview"):
            page.get_by_role("link", name=view).click()
            expect(page.locator(f"#view-{view.lower()}")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} at {width}"
        row(page, long).locator(".model").click()
        expect(page.locator("#panel h2")).to_have_text(long)
        assert page.evaluate("document.querySelector('#panel').scrollWidth <= innerWidth"), width
        page.keyboard.press("Escape")
        expect(page.locator("#panel")).to_be_hidden()
    assert page.locator("#main img").count() == 0
