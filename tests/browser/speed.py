"""How fast the app answers, measured in a real browser: what the slow test bounds and the benchmark prints."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["click_on_edge", "click_on_token", "first_page", "frames", "grid_hover", "hover", "open_head", "switches"]

# Of each page: what its shell is known by, and its chart.
PAGES = {
    "Head": ("text=/^All heads of layer/", ".tokens span"),
    "Flow": ("text=Heaviest edges", ".flow canvas[data-count]"),
    "Lens and attribution": ("text=What writes the answer", ".lens td"),
    "Atlas": ("[data-testid=stDataFrame]", ".map .plot canvas[data-geometry]"),
}

# Each hover is timed until the page has been laid out anew: what a frame would have to wait for.
_HOVER = """(element, [selector, count]) => {
  const spans = [...element.querySelectorAll(selector)], times = [];
  for (let i = 0; i < count; i++) {
    const span = spans[Math.floor((i * 0.618034 % 1) * spans.length)];
    const start = performance.now();
    span.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    element.getBoundingClientRect();
    element.parentElement.parentElement.scrollHeight;
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b);
}"""
_POINT = """(canvas, count) => {
  const box = canvas.getBoundingClientRect(), times = [];
  for (let i = 0; i < count; i++) {
    const clientX = box.left + (i * 0.618034 % 1) * box.width, clientY = box.top + (i * 0.414214 % 1) * box.height;
    const start = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY }));
    canvas.getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b);
}"""
_CLICK = """(element, i) => {
  const span = element.querySelectorAll("span[data-i]")[i], start = performance.now();
  span.click();
  element.getBoundingClientRect();
  const spent = performance.now() - start;
  if (!element.classList.contains("locked") || Number(element.dataset.token) !== i) throw new Error("not locked");
  return spent;
}"""


_ASK = """line => {
  const start = performance.now();
  line.click();
  line.getBoundingClientRect();
  return performance.now() - start;
}"""


def frames(page: Page) -> list[object]:
    """What the page sends to the server from now on."""
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    return sent


def _timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _settle(page: Page) -> None:
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(400)


def first_page(page: Page, address: str) -> float:
    """Seconds from asking for the Atlas to its map, in a browser that was never there."""

    def act() -> None:
        page.goto(address)
        page.locator(PAGES["Atlas"][1]).wait_for()

    return _timed(act)


def switches(page: Page) -> dict[str, tuple[float, float]]:
    """Of each page the seconds from the click on its link to its shell and table, and to its chart."""
    found = {}
    for name, (shell, chart) in PAGES.items():
        _settle(page)
        start = time.perf_counter()
        page.get_by_role("link", name=name, exact=True).click()
        page.locator(shell).first.wait_for()
        first = time.perf_counter() - start
        page.locator(chart).first.wait_for()
        found[name] = (first, time.perf_counter() - start)
    return found


def open_head(page: Page, address: str, words: str, head: str, n: int) -> float:
    """Seconds until a head is drawn on `n` words; it leaves the page there."""
    text = " ".join(words.split()[i % len(words.split())] for i in range(n))

    def act() -> None:
        page.goto(f"{address}/head?head={head}&bos=0&prompt={quote(text)}")
        if len(text) > 2_000:  # too long for an address in the app, but read from one
            page.locator(".tokens span").first.wait_for()
        page.locator(".tokens span").nth(n - 1).wait_for(state="attached")

    return _timed(act)


def hover(page: Page, count: int = 60) -> list[float]:
    """Milliseconds of each hover over a token, sorted."""
    return page.locator(".tokens").first.evaluate(_HOVER, ["span[data-i]", count])


def grid_hover(page: Page, count: int = 60) -> list[float]:
    """Milliseconds of each hover over the pictures of a layer, sorted."""
    return _canvas(page).evaluate(_POINT, count)


def click_on_token(page: Page, i: int) -> float:
    """Milliseconds from a click on a token to what it reads, locked."""
    return page.locator(".tokens").first.evaluate(_CLICK, i)


def click_on_edge(page: Page, row: int) -> tuple[float, float, float]:
    """Of a click on a row beside the tokens: milliseconds until its edge is told of beside it, by the browser alone;
    seconds until the server has chosen it, and until what the head wrote for it stands on the page."""
    _settle(page)
    line = page.locator(".best li.ask").nth(row)
    shown = page.locator(".asked").first
    key = re.search(r"(\d+)$", line.locator("small").inner_text().strip())
    assert key is not None
    start = time.perf_counter()
    told = line.evaluate(_ASK)
    assert f"reads source {key[1]} " in shown.inner_text()
    page.wait_for_url(re.compile(rf"edge=\d+%2C{key[1]}(&|$)"))
    chosen = time.perf_counter() - start
    page.get_by_text(f"suppresses when it reads {key[1]}:").wait_for()
    return told, chosen, time.perf_counter() - start


def _canvas(page: Page) -> Locator:
    return page.locator(".grid .plot canvas")
