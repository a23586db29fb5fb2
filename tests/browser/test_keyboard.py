"""The app without a mouse: from the Atlas to a head, along its tokens and heads, and back; two maps; ablation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect
CAT = "the cat sat on the mat"
_ACTIVE = """() => {
  let one = document.activeElement;
  while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
  return [one?.tagName, one?.className, one?.getAttribute("aria-label"), one?.textContent].map((x) => String(x ?? ""));
}"""


def tab_to(page: Page, *wanted: str, key: str = "Tab", most: int = 80) -> None:
    """Press a key until what has the focus holds all of some words in its tag, class, label or text."""
    seen = []
    for _ in range(most):
        page.keyboard.press(key)
        said = " ".join(page.evaluate(_ACTIVE))
        seen.append(said[:60])
        if all(word in said for word in wanted):
            return
    raise AssertionError(f"{wanted} cannot be reached by {key}: {seen}")


def outlined(page: Page) -> str:
    """The style of the outline of what has the focus."""
    return page.evaluate(
        "() => { let one = document.activeElement; while (one?.shadowRoot?.activeElement)"
        " one = one.shadowRoot.activeElement; return getComputedStyle(one).outlineStyle; }"
    )


def test_a_walk_by_keyboard_from_the_atlas_to_a_head_and_back(page, server):
    page.goto(f"{server}/?kind=induction")
    page.locator(".map .plot canvas[data-geometry]").wait_for()
    tab_to(page, "CANVAS", "of every head")
    assert outlined(page) == "solid"
    expect(page.locator(".map .readout b")).to_have_text("2.3")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".map .readout b")).to_have_text("1.2")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/head\?.*head=1\.2"))
    page.locator(".grid .plot canvas[data-geometry]").wait_for()
    tab_to(page, "Tokens of the prompt")
    assert outlined(page) == "solid"
    page.keyboard.press("Home")
    expect(page.locator(".tokens").first).to_have_attribute("data-token", "0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".tokens.locked").first).to_have_attribute("data-token", "1")
    tab_to(page, "Attention of the 4 heads")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".grid .plot canvas")).to_have_attribute("data-head", "1.3")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"head=1\.3"))
    expect(page.get_by_text("What is known about head 1.3")).to_be_visible()
    tab_to(page, "Show this kind in the Atlas")
    page.keyboard.press("Enter")
    page.locator(".map .plot canvas[data-geometry]").wait_for()
    assert urlsplit(page.url).path == "/"


@pytest.mark.slow
def test_pictures_of_a_layer_are_read_and_opened_without_losing_the_prompt(page, server):
    page.goto(f"{server}/head?head=0.1&bos=0&prompt={quote(CAT)}")
    canvas = page.locator(".grid .plot canvas[data-geometry]")
    canvas.wait_for()
    box = canvas.evaluate("canvas => JSON.parse(canvas.dataset.geometry)")
    step = box["side"] + box["gap"]
    canvas.hover(position={"x": 2 + 2 * step + box["side"] * 0.25, "y": box["label"] + box["side"] * 0.75})
    expect(page.locator(".grid .readout")).to_contain_text("0.2: destination 4 the reads source 1 cat")
    page.get_by_role("button", name="Ablate it now").click()
    expect(page.get_by_text("set to its mean").first).to_be_visible()
    canvas.click(position={"x": 2 + 2 * step + 5, "y": box["label"] + 5})
    page.wait_for_url(re.compile(r"head=0\.2"))
    expect(page.get_by_text("What is known about head 0.2")).to_be_visible()
    assert page.locator(".tokens").first.locator("span").all_inner_texts() == CAT.split()
    page.get_by_text("Weighted by what is carried").click()
    page.wait_for_url(re.compile("weighted=1"))
    expect(page.locator(".attention .help").first).to_contain_text("weighted attention")


def test_two_kinds_are_compared_on_two_maps_and_either_opens_its_head(page, server, runs):
    _, older, newer = runs
    query = f"run={newer}&kind=induction&against_run={older}&against=previous_token"
    page.goto(f"{server}/?{query}")
    maps = page.locator(".map .plot canvas[data-geometry]")
    expect(maps).to_have_count(2)
    maps.nth(1).focus()
    expect(page.locator(".map .readout b").last).to_have_text("1.2")
    page.goto(f"{server}/?{query}&compared=difference")
    expect(maps).to_have_count(1)
    expect(page.locator(".map .legend .low")).to_have_text("-0.84")
    page.locator(".map .plot canvas").press("Enter")
    page.wait_for_url(re.compile(r"/head\?"))
    assert parse_qs(urlsplit(page.url).query)["head"][0] in ("1.2", "2.3")


@pytest.mark.slow
def test_a_node_budget_cuts_the_lightest_edges_and_says_so(page, server):
    page.goto(f"{server}/flow?prompt={quote(CAT)}&bos=0&edges=40&nodes=6")
    canvas = page.locator(".flow canvas[data-count]")
    canvas.wait_for()
    assert 1 <= int(canvas.get_attribute("data-count") or 0) < 40
    expect(page.locator(".flow .shown")).to_contain_text("more than the 6 nodes that are drawn at most")
