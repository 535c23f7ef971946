"""Two hundred models and fifty events a second: what is drawn, kept and in the page has its bounds."""

import threading

import httpx
from playwright.sync_api import CDPSession, expect

from tests.api.caches import make_cache
from tests.ui.conftest import until

MODELS = [f"many/model-{number:03}" for number in range(200)]
EVENTS = 400  # eight seconds' worth
NODES_MAX = 2500
FLOOD = """
(count) => {
  const { store } = vllama;
  const names = [...store.models.keys()];
  const at = store.now();
  let seq = store.seq;
  const put = (actor, kind, fields, n) =>
    store.apply({ seq: (seq += 1), at: at + n / 1000, actor, cause: {}, kind, words: kind, ...fields });
  for (let n = 0; n < count; n += 1) {
    const model = names[n % names.length];
    put(model, "PhaseChanged", { to: n % 3 ? "awake" : "asleep" }, n);
    put(model, "AskAdmitted", { ask: 1e9 + n, request: "" }, n);
    put(model, "AskEnded", { ask: 1e9 + n }, n);
    put("broker", "DevicesMeasured", { epoch: n, devices: [{ device: "cpu", free_bytes: n, shared_bytes: 0, used_by: [] }] }, n);
    put("broker", "EvictionOrdered", { model, lease: n, level: 2, wanted_by: names[(n + 1) % names.length], short_bytes: 1,
      considered: [], spared: [], left_out: 0, device: "cpu", wanted_lease: n }, n);
  }
}
"""


def task_s(devtools: CDPSession) -> float:
    """How long the page's thread has worked."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def test_two_hundred_models_and_fifty_events_a_second_are_drawn_in_batches(
    vllama_server, tmp_path, open_page
) -> None:
    server = vllama_server(make_cache(tmp_path / "hub", dict.fromkeys(MODELS, "Qwen3ForCausalLM")), fake=True)
    page = open_page(server)
    until(page, "vllama.store.models.size === 200")
    expect(page.locator("#models .vrow").first).to_be_visible()
    devtools = page.context.new_cdp_session(page)
    devtools.send(
        "Performance.enable", {"timeDomain": "threadTicks"}
    )  # time of the processor: load does not change it
    busy, (drawn, began) = task_s(devtools), page.evaluate("[vllama.drawn.count, performance.now()]")
    done = threading.Event()

    def events() -> None:
        """Two and a half events for each: a model begins, a command is taken and answered."""
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
            for number in range(EVENTS // 2):
                http.post("/control/stop", json={"model": MODELS[number % len(MODELS)]}).raise_for_status()
                done.wait(0.03)

    feeding = threading.Thread(target=events)
    feeding.start()
    try:
        until(page, f"vllama.store.events.length >= {EVENTS}")
    finally:
        feeding.join()
    count, ended = page.evaluate("[vllama.drawn.count, performance.now()]")
    assert count - drawn <= (ended - began) / 100 + 2  # ten drawings a second at most, however many events
    assert page.locator("#models .vrow").count() < 60
    assert page.locator("*").count() < NODES_MAX
    worked = task_s(devtools) - busy
    assert worked < (ended - began) / 1000 / 2, f"{worked:.1f} s of work in {ended - began:.0f} ms"

    page.locator("#models .model").first.focus()
    page.keyboard.press("End")
    expect(page.locator(f'#models .vrow[data-row="{MODELS[-1]}"]')).to_be_visible()
    page.locator("#models-filter").fill("model-123")
    expect(page.locator("#models .vrow")).to_have_count(1)
    page.get_by_role("link", name="Events").click()
    expect(page.locator("#events .vrow").first).to_be_visible()
    assert page.locator("#events .vrow").count() < 60


def test_what_the_page_keeps_has_a_bound(vllama_server, tmp_path, open_page) -> None:
    server = vllama_server(make_cache(tmp_path / "hub", dict.fromkeys(MODELS, "Qwen3ForCausalLM")), fake=True)
    page = open_page(server)
    until(page, "vllama.store.models.size === 200")
    for _ in range(4):
        page.evaluate(FLOOD, 3000)
    kept = page.evaluate(
        "({store}) => ({events: store.events.length, swaps: store.swaps.length, traffic: store.traffic.length,"
        " series: Math.max(...[...store.books.devices.values()].map(device => device.series.length)),"
        " segments: Math.max(...[...store.models.values()].map(model => model.segments.length)),"
        " marks: Math.max(...[...store.models.values()].map(model => model.swaps.length)),"
        " open: store.openSwaps.size})",
        page.evaluate_handle("vllama"),
    )
    assert kept["events"] <= 5500
    assert kept["swaps"] <= 300
    assert kept["traffic"] <= 3000
    assert kept["series"] <= 3000
    assert kept["segments"] <= 400
    assert kept["marks"] <= 60
    assert kept["open"] <= 300
    until(page, "vllama.drawn.version === vllama.store.version")
    assert page.locator("*").count() < NODES_MAX
    page.get_by_role("link", name="Events").click()
    expect(page.locator("#events .vrow").first).to_be_visible()
    page.locator("#events").evaluate("box => { box.scrollTop = box.scrollHeight / 2; }")
    expect(page.locator("#events .vrow").first).to_be_visible()
    assert page.locator("#events .vrow").count() < 60
