"""The pages in a real browser: what is clicked, hovered, typed, and what hostile text must not do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
from serving import HOSTILE  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=20_000)
CAT = "the cat sat on the mat"


def open_head(page: Page, server: str, query: str = "") -> None:
    page.goto(f"{server}/head?{query}")
    page.locator(".tokens span").first.wait_for()


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def shown(page: Page, label: str) -> str:
    """The value of a select box."""
    box = page.locator("[data-testid=stSelectbox]", has=page.get_by_text(label, exact=True))
    return box.locator("[data-baseweb=select], [role=combobox], input").first.evaluate(
        "e => e.value || e.innerText || e.getAttribute('value') || ''"
    )


def cell(page: Page, layer: int, head: int) -> dict[str, float]:
    """The middle of a cell of the map."""
    box = json.loads(page.locator(".plot canvas").get_attribute("data-geometry") or "")
    return {"x": box["left"] + (head + 0.5) * box["w"], "y": box["top"] + (layer + 0.5) * box["h"]}


def shades(page: Page) -> list[str]:
    return page.locator(".tokens span").evaluate_all("spans => spans.map(span => span.style.background)")


def test_a_click_on_the_map_opens_that_head(page, server):
    page.goto(server)
    canvas = page.locator(".plot canvas")
    canvas.wait_for()
    canvas.hover(position=cell(page, 1, 2))
    expect(page.locator(".map .readout")).to_contain_text("1.2score 0.90 (0.89 to 0.91) · effect 1.50")
    canvas.click(position=cell(page, 2, 1))
    page.wait_for_url(re.compile(r"/head\?.*head=2\.1"))
    expect(page.get_by_text("What is known about head 2.1")).to_be_visible()
    expect(page.locator(".tokens span").first).to_be_visible()


def test_the_map_is_read_and_opened_with_the_keyboard(page, server):
    page.goto(f"{server}/?kind=induction")
    canvas = page.locator(".plot canvas")
    canvas.focus()
    readout = page.locator(".map .readout b")
    expect(readout).to_have_text("2.3")  # the best head
    for key in ("ArrowUp", "ArrowLeft", "ArrowRight", "ArrowRight"):  # the last one would leave the map
        canvas.press(key)
    expect(readout).to_have_text("1.3")
    canvas.press("Enter")
    page.wait_for_url(re.compile(r"/head\?.*head=1\.3"))


def test_a_ticked_row_opens_its_head_and_the_way_back_stays_on_the_atlas(page, server):
    page.goto(f"{server}/?kind=induction")
    rows = page.locator("[data-testid=stDataFrame]")
    rows.locator("canvas").first.wait_for()
    rows.click(position={"x": 16, "y": 52})  # the first row: 2.3 has the best score
    page.wait_for_url(re.compile(r"/head\?.*head=2\.3"))
    expect(page.locator(".tokens span").first).to_be_visible()
    page.get_by_role("link", name="Atlas").click()
    page.locator(".plot canvas").wait_for()
    page.wait_for_timeout(1_000)
    assert urlsplit(page.url).path == "/" and address(page)["kind"] == ["induction"]


def test_a_deep_link_restores_run_head_prompt_and_bos(page, server, runs):
    _, older, _ = runs
    open_head(page, server, f"run={older}&head=1.2&bos=0&prompt={quote(CAT)}")
    assert page.locator(".tokens span").all_inner_texts() == CAT.split()
    expect(page.get_by_text("What is known about head 1.2")).to_be_visible()
    expect(page.get_by_text("1.50 (1.25 to 1.75)").first).to_be_visible()
    assert "older" in shown(page, "Run") and shown(page, "Head (layer.head)") == "1.2"
    assert address(page) == {"run": [older], "head": ["1.2"], "bos": ["0"], "prompt": [CAT]}


def test_bad_addresses_are_said_and_the_page_works(page, server):
    run, head = f"../../etc {HOSTILE[1]}", "99.99"
    open_head(page, server, f"run={quote(run)}&head={head}&bos=maybe&prompt=%20&model=https://192.0.2.1/x")
    notices = page.locator(".interp-notice").all_inner_texts()
    for word in ("run", "bos", "prompt", "99.99", "model"):
        assert any(word in text for text in notices), (word, notices)
    assert any(HOSTILE[1] in text for text in notices)
    assert page.locator("img[src*='192.0.2']").count() == 0


def test_hovering_a_token_shows_what_it_reads_without_a_word_to_the_server(page, server):
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    open_head(page, server, f"head=0.1&prompt={quote(CAT)}")
    page.wait_for_timeout(500)  # what the page itself had to say
    before, first = len(sent), shades(page)
    assert before  # frames are seen at all
    seen = {tuple(first)}
    for i in range(1, 6):
        page.locator(f".tokens span[data-i='{i}']").hover()
        expect(page.locator(".tokens")).to_have_attribute("data-token", str(i))
        seen.add(tuple(shades(page)))
    assert len(seen) == 6
    total = sum(float(text) for text in page.locator(".best li > span:first-child").all_inner_texts())
    assert total == pytest.approx(1, abs=0.01)
    page.locator(".tokens span[data-i='2']").click()
    page.locator(".tokens span[data-i='4']").hover()
    expect(page.locator(".tokens")).to_have_attribute("data-token", "2")  # locked
    page.locator("button.read-by").click()
    expect(page.locator(".attention .readout")).to_contain_text("is read by")
    page.locator(".tokens").press("Escape")
    page.locator(".tokens span[data-i='4']").hover()
    expect(page.locator(".tokens")).to_have_attribute("data-token", "4")
    page.locator(".matrix .cells").hover(position={"x": 2, "y": 2})
    expect(page.locator(".tokens")).to_have_attribute("data-token", "0")
    page.wait_for_timeout(300)
    assert len(sent) == before


def test_arrow_keys_move_along_the_tokens(page, server):
    open_head(page, server, f"head=0.1&bos=0&prompt={quote(CAT)}")
    tokens = page.locator(".tokens")
    tokens.focus()
    for key, place in (("ArrowLeft", 4), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("End", 5)):
        tokens.press(key)
        expect(tokens).to_have_attribute("data-token", str(place))
        expect(page.locator(".tokens .chosen")).to_have_attribute("data-i", str(place))


@pytest.mark.slow
def test_another_head_keeps_the_locked_token(page, server):
    open_head(page, server, f"head=0.1&prompt={quote(CAT)}")
    page.locator(".tokens span[data-i='3']").click()
    before = shades(page)
    choice = page.get_by_role("combobox", name=re.compile("Head"))
    choice.click()
    choice.fill("2.2")
    choice.press("Enter")
    expect(page.get_by_text("What is known about head 2.2")).to_be_visible()
    expect(page.locator(".tokens.locked")).to_have_attribute("data-token", "3")
    assert shades(page) != before


def test_hostile_tokens_prompts_and_titles_are_text(page, server):
    page.goto(server)
    assert HOSTILE[0] in shown(page, "Run") and HOSTILE[1] in shown(page, "Run")
    open_head(page, server, f"head=0.1&bos=0&prompt={quote(' '.join(HOSTILE))}")
    assert page.locator(".tokens span").all_text_contents() == [*HOSTILE[:3], "␦evil"]
    for i in range(4):
        page.locator(f".tokens span[data-i='{i}']").hover()
    expect(page.locator(".best b").first).to_be_visible()
    page.wait_for_timeout(300)
    assert page.locator("img[src='x'], img[src*='192.0.2']").count() == 0


def test_a_typed_prompt_is_read_and_survives_a_reload(page, server):
    open_head(page, server, "head=0.1&bos=0")
    box = page.get_by_role("textbox", name="Prompt")
    box.fill("a cat")
    box.press("Control+Enter")
    expect(page.locator(".tokens span")).to_have_count(2)
    page.wait_for_url(re.compile("prompt=a"))
    page.reload()
    expect(page.locator(".tokens span")).to_have_count(2)
    page.get_by_role("link", name="Atlas", exact=True).click()
    page.locator(".map .plot canvas").wait_for()  # the Head page has a canvas too
    page.get_by_role("link", name="Head", exact=True).click()
    expect(page.locator(".tokens span")).to_have_count(2)
    page.wait_for_url(re.compile(r"prompt=a(\+|%20)cat"))


def test_two_readers_do_not_disturb_each_other(new_page, server):
    one, other = new_page(), new_page()
    open_head(one, server, f"head=0.1&prompt={quote(CAT)}")
    open_head(other, server, "head=2.2&prompt=cat")
    one.locator(".tokens span[data-i='1']").click()
    one.reload()
    expect(one.locator(".tokens span")).to_have_count(7)
    expect(other.locator(".tokens span")).to_have_count(2)


def test_an_empty_store_is_filled_by_a_job_that_can_be_cancelled_and_survives_a_reload(own_server: str, page: Page):
    page.goto(own_server)
    expect(page.get_by_text("No run is stored yet")).to_be_visible()
    expect(page.get_by_text("interp heads tiny --store")).to_be_visible()
    start: Callable[[], None] = page.get_by_role("button", name="Find heads").click
    start()
    expect(page.get_by_text("ablating")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Nothing was stored")).to_be_visible(timeout=10_000)
    start()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()  # "ablating" still stands on the page
    expect(page.get_by_text("ablating")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.locator(".plot canvas").wait_for()
