"""Lens, Flow and an explained edge in a real browser: deep links, what stays in the browser, hostile text,
narrow pages. The page fixture fails on console errors and on requests to any other host."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
from serving import HOSTILE  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=20_000)
CAT = "the cat sat on the mat"
ASKED = urlencode({"prompt": CAT, "bos": "0", "answer_token": "a", "foil_token": "cat"})


def node(page: Page, layer: int, pos: int) -> dict[str, float]:
    """The place of a node on the canvas of the graph."""
    box = json.loads(page.locator(".flow canvas").get_attribute("data-geometry") or "")
    return {"x": box["left"] + (pos + 0.5) * box["x"], "y": box["top"] + (box["layers"] - layer + 0.3) * box["y"]}


def frames(page: Page) -> list[object]:
    """What the page sends to the server from now on."""
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    return sent


def test_a_lens_is_read_in_the_browser_and_a_click_chooses_a_position(page, server):
    sent = frames(page)
    page.goto(f"{server}/lens?{ASKED}&pins=a+on&by=head")
    expect(page.locator(".lens td")).to_have_count(4 * 6)
    expect(page.get_by_text("Exact sum")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    page.wait_for_timeout(500)
    before = len(sent)
    page.locator(".lens td[data-layer='1'][data-pos='2']").hover()
    expect(page.locator(".lens .readout")).to_contain_text("layer 1, behind 2 sat")
    page.locator(".lens select").select_option("rank of on")
    expect(page.locator(".lens td[data-layer='1'][data-pos='2']")).to_contain_text("#")
    page.locator(".lens .scroll").focus()
    page.locator(".lens .scroll").press("ArrowDown")
    expect(page.locator(".lens td.cursor")).to_have_attribute("data-layer", "2")
    page.wait_for_timeout(300)
    assert len(sent) == before > 0
    page.locator(".lens td[data-layer='1'][data-pos='2']").click()
    page.wait_for_url(re.compile("pos=2"))
    expect(page.locator(".lens th.chosen")).to_have_attribute("data-pos", "2")
    assert page.locator(".lens select").input_value() == "rank of on"  # kept


def test_a_graph_is_thinned_and_pinned_in_the_browser_and_kept_on_the_server(page, server):
    sent = frames(page)
    page.goto(f"{server}/flow?{ASKED}&edges=40")
    canvas = page.locator(".flow canvas")
    expect(canvas).to_have_attribute("data-count", "40")
    page.wait_for_timeout(500)
    before = len(sent)
    page.locator(".flow .threshold").focus()
    page.locator(".flow .threshold").press("End")
    expect(canvas).to_have_attribute("data-count", "1")
    page.locator(".flow .threshold").press("Home")
    for _ in range(15):
        page.locator(".flow .threshold").press("ArrowRight")
    expect(page.locator(".flow .shown")).to_contain_text("25 of 40 edges")
    canvas.click(position=node(page, 1, 1))
    expect(canvas).to_have_attribute("data-node", "1:1")
    canvas.hover(position=node(page, 2, 3))
    expect(page.locator(".flow .readout")).to_contain_text("1 cat as it enters layer 1, pinned")
    expect(page.locator(".flow .lists h4.in")).to_contain_text("Reads")
    canvas.press("Escape")
    canvas.press("ArrowUp")
    expect(canvas).to_have_attribute("data-node", "2:1")
    page.wait_for_timeout(300)
    assert len(sent) == before > 0
    page.locator(".flow .keep").click()
    page.wait_for_url(re.compile("edges=25"))
    expect(canvas).to_have_attribute("data-count", "25")
    page.get_by_role("button", name="Measure faithfulness").click()
    expect(page.get_by_text("Random graphs have as many edges")).to_be_visible()
    with page.expect_download() as got:
        page.get_by_role("button", name="Download GraphML").click()
    assert "<graphml" in got.value.path().read_text()


def test_a_row_beside_the_tokens_explains_its_edge(page, server):
    page.goto(f"{server}/head?head=1.2&bos=0&prompt={quote(CAT)}")
    expect(page.get_by_text("What did it write?")).to_be_visible()
    row = page.locator(".best li.ask").nth(2)
    key = re.search(r"(\d+)$", row.inner_text().strip())
    assert key is not None
    row.click()
    expect(page.locator(".asked").first).to_contain_text(
        re.compile(f"destination 5 mat reads source {key[1]} .* its source number 3")
    )
    page.wait_for_url(re.compile(f"edge=5%2C{key[1]}"))
    expect(row).to_have_class(re.compile("picked"))
    page.get_by_role("button", name="Confirm by intervention").click()
    expect(page.get_by_text("Only this edge is touched")).to_be_visible()


@pytest.mark.parametrize("path", ["lens?by=source&pins=a", "flow?edges=20", "head?head=1.2"])
def test_hostile_text_is_literal_and_narrow_pages_do_not_scroll_sideways(page, server, path):
    page.set_viewport_size({"width": 420, "height": 900})
    answer = quote(HOSTILE[1])
    page.goto(f"{server}/{path}&bos=0&prompt={quote(' '.join(HOSTILE))}&answer_token={answer}")
    ready = {"lens": ".lens td", "flow": ".flow canvas", "head": ".best li.ask"}[path.split("?")[0]]
    page.locator(ready).first.wait_for()
    page.locator(".js-plotly-plot, summary").first.wait_for(state="attached")
    page.wait_for_timeout(700)
    assert page.locator("img[src='x'], img[src*='192.0.2'], a[href*='192.0.2']").count() == 0
    wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    main = page.locator("[data-testid=stMain]").evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert wide[0] <= wide[1] and main[0] <= main[1]
    assert page.locator("[data-testid=stException]").count() == 0
