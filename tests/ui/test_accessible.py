"""axe-core's rules hold for each view, in both schemes, on a phone and on a desk."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.api.caches import CHAT, EMBED
from tests.ui.conftest import HEIGHTS


def offences(page: Page, where: str) -> list[str]:
    """What axe finds wrong, each with the first element."""
    found = Axe().run(page).response["violations"]
    return [f"{where}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]


def look(page: Page, where: str) -> list[str]:
    """Every view, as it is now."""
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("#models .vrow")).to_have_count(3)
    found = offences(page, f"overview {where}")
    page.locator(f'#models .vrow[data-row="{CHAT}"] .model').click()
    expect(page.locator("#panel-log")).to_contain_text("startup complete")
    expect(page.locator("#panel-whys li").first).to_be_visible()
    found += offences(page, f"panel {where}")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Events").click()
    page.locator("#events .vrow button").first.click()
    expect(page.locator("#event-detail")).to_be_visible()
    found += offences(page, f"events {where}")
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#chat-log article.assistant .said")).to_contain_text("Paris")
    return found + offences(page, f"chat {where}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(make_rig, open_page, scheme: str) -> None:
    rig = make_rig(f"{EMBED}:die_at_start", env={"VLLAMA_BACKOFF_S": "0", "VLLAMA_RESTARTS_MAX": "1"})
    rig.chat(CHAT).raise_for_status()
    rig.command("start", EMBED)
    page = open_page(rig.server, "chat", scheme=scheme)
    page.locator("#chat-input").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    found = look(page, f"{scheme} 1440")
    page.set_viewport_size({"width": 360, "height": HEIGHTS[360]})
    found += look(page, f"{scheme} 360")
    rig.server.end()
    page.wait_for_selector('body[data-state="lost"]')
    assert found + offences(page, f"no server {scheme}") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_where_a_key_is_asked_for(make_rig, open_page, scheme: str) -> None:
    rig = make_rig(env={"VLLAMA_API_KEY": "data"})
    page = open_page(rig.server, scheme=scheme, ready=False)
    expect(page.locator("#key")).to_be_visible()
    assert offences(page, "key") == []
