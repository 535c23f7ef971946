"""docs/screenshots/: the page in the browser over a lively server, in both schemes, on a desk and on a phone.

python tools/screenshots.py [FOLDER]
"""

import sys
import threading
from pathlib import Path

import chromium
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from scene import BUSIEST, busy, lively
from serving import Vllama

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
BEFORE_S = 55.0  # of traffic, so that the first picture has something to show
DURING_S = 110.0
COLOURS = 256
SIZES = {"desk": (1440, 1120), "phone": (360, 1480), "wide": (2560, 1160)}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = chromium.find() or chromium.install()
    with lively() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(chromium.ARGS))
        traffic = threading.Thread(target=busy, args=(server, DURING_S))
        traffic.start()
        traffic.join(BEFORE_S)
        for size in SIZES:
            for scheme in ("light", "dark"):
                if (size, scheme) != ("wide", "dark"):
                    _overview(browser, server, folder, size, scheme)
        _model(browser, server, folder)
        _events(browser, server, folder)
        _chat(browser, server, folder)
        traffic.join()
        browser.close()
    for file in sorted(folder.glob("*.png")):
        _shrink(file)
        print(f"{file.name:28} {file.stat().st_size / 1024:6.0f} KiB")
    return 0


def _shrink(file: Path) -> None:
    """The commonest colours stay as they are: surfaces and text are not tinted by what is left out."""
    image = Image.open(file).convert("RGB")
    counted: list[tuple[int, tuple[int, int, int]]] = image.getcolors(image.width * image.height) or []  # type: ignore[assignment]
    commonest = sorted(counted, reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in commonest for part in colour])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(file, optimize=True)


def _open(browser: Browser, server: Vllama, view: str, size: str, scheme: str) -> Page:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{server.url}/ui#{view}")
    page.wait_for_selector('body[data-state="live"]')
    return page


def _take(page: Page, folder: Path, name: str) -> None:
    page.wait_for_timeout(700)  # the bars have come to rest
    page.screenshot(path=folder / f"{name}.png")
    page.close()


def _overview(browser: Browser, server: Vllama, folder: Path, size: str, scheme: str) -> None:
    page = _open(browser, server, "overview", size, scheme)
    page.locator("#window").select_option("60")
    if size == "desk" and scheme == "light":
        page.wait_for_timeout(500)
        page.locator(f'#models .vrow[data-row="{BUSIEST}"] .mark-victim').last.hover()
    _take(page, folder, f"overview-{size}-{scheme}")


def _model(browser: Browser, server: Vllama, folder: Path) -> None:
    page = _open(browser, server, "overview", "desk", "dark")
    page.locator("#window").select_option("60")
    page.locator(f'#models .vrow[data-row="{BUSIEST}"] .model').click()
    page.locator("#panel-log").wait_for()
    _take(page, folder, "model-desk-dark")


def _events(browser: Browser, server: Vllama, folder: Path) -> None:
    page = _open(browser, server, "events", "desk", "light")
    page.locator("#events .vrow").first.wait_for()
    page.locator("#events-pause").click()
    _take(page, folder, "events-desk-light")


def _chat(browser: Browser, server: Vllama, folder: Path) -> None:
    page = _open(browser, server, "chat", "phone", "light")
    page.set_viewport_size({"width": 360, "height": 760})
    page.locator("#chat-model").select_option("Qwen/Qwen3-0.6B")
    page.locator("#chat-input").fill("What is the capital of France?")
    page.locator("#chat-input").press("Enter")
    page.get_by_role("button", name="Send").wait_for(state="hidden")
    page.get_by_role("button", name="Send").wait_for(timeout=60_000)
    _take(page, folder, "chat-phone-light")


if __name__ == "__main__":
    sys.exit(main())
