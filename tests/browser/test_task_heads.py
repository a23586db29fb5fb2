"""Kinds of tasks in a real browser: the filter by keyboard, a deep link, a head's own examples, hostile text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
from serving import HOSTILE  # noqa: E402

from interp.runs.store import RunStore  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect


def address(page: Page) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(urlsplit(page.url).query).items()}


def test_from_the_filter_to_the_heads_examples_and_back(new_page, server: str, runs: tuple[Path, str, str]):
    (run,) = [one.id for one in RunStore(runs[0]).list() if one.title == "tasks"]
    page = new_page()
    page.goto(f"{server}/?run={run}&kind=name_mover")
    page.locator(".plot canvas").wait_for()
    choice = page.get_by_role("radio", name=re.compile("failed candidates · 2"))
    choice.focus()
    choice.press("Space")
    page.wait_for_url(re.compile("verdict=failed"))
    expect(page.get_by_text("left out by the filter")).to_be_visible()
    canvas = page.locator(".plot canvas")
    canvas.focus()  # on the best of the heads that the filter leaves
    expect(page.locator(".map .readout b")).to_have_text("1.3")
    expect(page.locator(".map .readout")).to_contain_text(HOSTILE[0])
    other = new_page()
    other.goto(page.url)  # the address reproduces the page
    expect(other.get_by_role("radio", name=re.compile("failed candidates"))).to_be_checked()
    canvas.press("Enter")
    page.wait_for_url(re.compile(r"/head\?.*head=1\.3"))
    expect(page.get_by_text("What is known about head 1.3")).to_be_visible()
    expect(page.locator(".tokens span[data-mark=IO]")).to_have_count(3)
    start = page.locator(".views.compact .tokens").first
    expect(start).to_have_attribute("data-token", "5")
    start.focus()
    start.press("ArrowLeft")
    expect(start).to_have_attribute("data-token", "4")
    assert page.locator("img[src='x'], img[src*='192.0.2']").count() == 0
    page.get_by_role("button", name="Show this kind in the Atlas").click()
    page.locator(".map .plot canvas").wait_for()  # the Head page has a canvas and a kind in its address too
    page.wait_for_url(re.compile(r"\d/\?.*kind=name_mover"))
    assert urlsplit(page.url).path == "/" and address(page) == {"run": run, "kind": "name_mover"}


@pytest.mark.slow
def test_a_narrow_page_does_not_scroll_sideways(page, server: str, runs: tuple[Path, str, str]):
    (run,) = [one.id for one in RunStore(runs[0]).list() if one.title == "tasks"]
    page.set_viewport_size({"width": 420, "height": 900})
    for path, ready in (("/?kind=name_mover", ".plot canvas"), ("/head?head=2.1", ".views.compact .tokens")):
        page.goto(f"{server}{path}&run={run}")
        page.locator(ready).first.wait_for()
        page.wait_for_timeout(500)
        wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], path
        main = page.locator("[data-testid=stMain]").evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert main[0] <= main[1], path
