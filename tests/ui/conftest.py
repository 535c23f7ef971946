"""A browser over the page of a real server: no error in its console, no request to another host, or the test fails."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import chromium
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from serving import Vllama, wait_until

from tests.acceptance.gpu_rig import GpuRig, rigs
from tests.api.conftest import fake_cache, make_rig, rig

__all__ = ["fake_cache", "make_rig", "rig"]

BOUND_MS = 30_000
HEIGHTS = {360: 780, 768: 1024, 1440: 900, 2560: 1440}
expect.set_options(timeout=BOUND_MS)


def until(page: Page, holds: str) -> None:
    """Returns when an expression holds in the page. Playwright's own waiting needs `eval` there, which the policy forbids."""
    assert wait_until(lambda: bool(page.evaluate(holds)), BOUND_MS / 1000), (
        f"it never came to be that {holds}"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Playwright holds an event loop while it runs, so it lives no longer than a module."""
    path = chromium.find()
    if path is None:
        pytest.skip(f"no Chromium: {chromium.why_not() or 'run python tools/chromium.py'}")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(chromium.ARGS))
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(server, "events", width=360, scheme="dark")`: a tab of its own on that view."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def make(
        server: Vllama | str,
        view: str = "overview",
        *,
        width: int = 1440,
        scheme: str = "light",
        ready: bool = True,
    ) -> Page:
        url = server if isinstance(server, str) else server.url
        context = browser.new_context(
            viewport={"width": width, "height": HEIGHTS[width]},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(BOUND_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        page.on("console", lambda message: _console(message.type, message.text, problems))
        page.on("request", lambda request: _request(request.url, url, problems))
        page.goto(f"{url}/ui#{view}")
        if ready:
            page.wait_for_selector('body[data-state="live"]')
        return page

    yield make
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


def _console(kind: str, words: str, problems: list[str]) -> None:
    # An answer of 4xx, or none at all, is told by the browser itself; the page's own words are not.
    if kind in ("error", "warning") and not words.startswith("Failed to load resource"):
        problems.append(f"console {kind}: {words}")


def _request(asked: str, url: str, problems: list[str]) -> None:
    if urlsplit(asked).netloc != urlsplit(url).netloc:
        problems.append(f"a request to another host: {asked}")


@pytest.fixture
def make_gpu_rig(vllama_server, tmp_path: Path, gpu_driver: Path) -> Iterator[Callable[..., GpuRig]]:
    """As tests/acceptance's: a server on fake GPUs."""
    yield from rigs(vllama_server, tmp_path, gpu_driver)
