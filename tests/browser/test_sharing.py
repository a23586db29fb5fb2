"""Explore, Runs and the bar of every view in a real browser: what is typed, ticked, copied and saved. The page fixture
fails on console errors, dialogs and requests to any other host."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
from serving import HOSTILE, tiny_scores  # noqa: E402

from interp.runs.store import RunStore  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=20_000)
CAT = "the cat sat on the mat"
ASKED = {"prompt": CAT, "bos": "0", "answer_token": "a", "foil_token": "cat"}


def address(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def saved(page: Page, button: str, folder: Path, *, exact: bool = False) -> Path:
    """The file that a press on a button gives."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=exact).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_a_prompt_is_asked_with_the_keyboard_read_by_token_and_taken_along(page, server):
    page.goto(f"{server}/explore?{urlencode(ASKED)}")
    tokens = page.locator(".tokens li")
    expect(tokens).to_have_count(6)
    expect(page.get_by_text("Logit difference, answer − foil")).to_be_visible()
    box = page.get_by_role("textbox", name="Prompt")
    box.fill("a cat sat on a mat on")
    box.press("Control+Enter")
    expect(tokens).to_have_count(7)
    tokens.nth(1).focus()
    tokens.nth(1).press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("pos=2"))
    expect(tokens.nth(2)).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="Lens and attribution").click()
    page.wait_for_url(re.compile(r"/lens\?.*prompt="))
    expect(page.locator(".lens td")).to_have_count(4 * 7)
    assert address(page)["prompt"] == "a cat sat on a mat on" and address(page)["answer_token"] == "a"


def test_the_bar_copies_the_link_and_the_code_and_saves_pictures_and_tables(page, server, tmp_path):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server}/lens?{urlencode({**ASKED, 'pins': 'a on'})}")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".said")).to_have_text("Link copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url and "pins=a" in link
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator(".said")).to_have_text("Python copied.")
    assert "interp.lens(model, tokens" in page.evaluate("navigator.clipboard.readText()")
    for kind in ("SVG", "PNG"):
        page.get_by_role("button", name=kind, exact=True).click()
        for drawing in ("lens", "ranks"):  # a component, and a chart
            path = saved(page, f"{drawing}.{kind.lower()}", tmp_path)
            assert path.name == f"lens_{drawing}.{kind.lower()}"
            if kind == "SVG":
                text = path.read_text()
                assert text.startswith("<svg") and ("sat" in text if drawing == "lens" else "likeliest" in text)
            else:
                content = path.read_bytes()
                width, height = struct.unpack(">II", content[16:24])
                assert content.startswith(b"\x89PNG") and width > 500 and height > 200
    page.get_by_role("button", name="Tables and page").click()
    assert saved(page, "lens (CSV)", tmp_path).read_text().startswith("prompt,pos,text,layer")
    assert "<table>" in saved(page, "Self-contained page (HTML)", tmp_path).read_text()


@pytest.mark.slow
def test_without_a_clipboard_the_code_is_shown_to_be_copied(page, server):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(f"{server}/explore?{urlencode(ASKED)}")
    page.get_by_role("button", name="Copy as Python").click()
    shown = page.get_by_role("textbox", name="This view as Python")
    expect(shown).to_be_focused()
    assert "model.to_tokens('the cat sat on the mat', prepend_bos=False)" in shown.input_value()
    assert shown.evaluate("e => e.selectionEnd - e.selectionStart") == len(shown.input_value())


@pytest.mark.slow
def test_runs_are_searched_opened_and_deleted_by_their_whole_id(page, own_server: str, tmp_path: Path):
    store = RunStore(tmp_path / "runs")
    hostile = store.save(tiny_scores(), spec={HOSTILE[0]: HOSTILE[1]}, title=f"one {HOSTILE[0]} {HOSTILE[1]}")
    other = store.save(tiny_scores(), spec={}, title="two")
    page.goto(f"{own_server}/runs?search={quote('one')}")
    expect(page.get_by_text("1 run; tick a row")).to_be_visible()
    page.wait_for_url(re.compile(hostile.id))
    page.get_by_text("Provenance: how it was made").click()
    expect(page.get_by_role("cell", name=HOSTILE[1], exact=True)).to_be_visible()
    box = page.get_by_role("textbox", name="Search")
    box.fill("two")
    box.press("Enter")
    page.wait_for_url(re.compile("search=two"))
    page.goto(f"{own_server}/runs?picked={other.id}")
    page.get_by_role("button", name="Delete…").click()
    for typed in (other.id[:-1], other.id):
        page.get_by_role("textbox", name="Id of the run to delete").fill(typed)
        page.get_by_role("button", name="Delete for good").click()
        said = "nothing was deleted" if typed != other.id else f"Run {other.id} was deleted"
        expect(page.get_by_text(said)).to_be_visible()
    assert [run.id for run in store.list()] == [hostile.id]
    page.get_by_role("button", name="Open in Atlas").click()
    page.locator(".plot canvas").wait_for()
    assert address(page)["run"] == hostile.id


@pytest.mark.slow
def test_hostile_text_is_literal_on_explore_and_in_what_it_saves(page, server, tmp_path):
    text = " ".join(HOSTILE)
    asked = {"prompt": text, "bos": "0", "answer_token": HOSTILE[0], "foil_token": HOSTILE[1]}
    page.goto(f"{server}/explore?{urlencode(asked)}")
    tokens = page.locator(".tokens li")
    expect(tokens).to_have_count(4)
    assert tokens.nth(1).inner_text() == HOSTILE[1]
    expect(page.locator(".js-plotly-plot")).to_have_count(1)
    page.get_by_role("button", name="SVG", exact=True).click()
    svg = saved(page, "tokens.svg", tmp_path)
    page.get_by_role("button", name="Tables and page").click()
    html = saved(page, "Self-contained page (HTML)", tmp_path)
    for path in (svg, html):
        page.set_content(path.read_text())
        page.wait_for_timeout(300)
        assert page.locator("img").count() == 0 and page.locator("script").count() == 0
        assert HOSTILE[1] in page.locator("body").inner_text()


@pytest.mark.slow
def test_the_bar_is_reached_and_used_with_the_keyboard_alone(page, server):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server}/explore?{urlencode(ASKED)}")
    expect(page.locator(".tokens li")).to_have_count(6)
    page.wait_for_timeout(1_000)
    page.get_by_role("textbox", name="Prompt").focus()
    reached = []
    inner = (
        "() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;"
    )
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(f"{inner} return (e.innerText || e.ariaLabel || e.tagName).trim(); }}"))
        if reached[-1] == "Copy as Python":
            page.keyboard.press("Enter")
            expect(page.locator(".said")).to_have_text("Python copied.")
        if reached[-1] == "mat":
            break
    assert reached.index("Ask") < reached.index("Copy link") < reached.index("Copy as Python") < len(reached) - 1
    assert any("Tables and page" in one for one in reached) and reached[-1] == "mat"  # one stop of all tokens
