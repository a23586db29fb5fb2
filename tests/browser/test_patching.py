"""The Patching page in a real browser: a pair is typed, patched, cancelled, linked to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
from serving import HOSTILE, ROOT  # noqa: E402

from interp.runs.store import RunStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
expect = sync_api.expect
PAIR = {"clean": "the cat sat on", "corrupt": "the mat sat on", "answer": "a", "foil": "cat"}


def address(page: Page) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(urlsplit(page.url).query).items()}


def patch(page: Page) -> None:
    page.get_by_role("button", name="Patch", exact=True).click()
    expect(page.get_by_text(re.compile(r"cells patched: [1-9]"))).to_be_visible()


def test_a_pair_is_patched_and_its_address_reproduces_the_page(new_page, own_server: str, tmp_path: Path):
    page = new_page()
    page.goto(f"{own_server}/patching?{urlencode({**PAIR, 'corrupt': 'the cat sat'})}")
    expect(page.locator(".interp-notice pre")).to_contain_text("first difference")
    box = page.get_by_role("textbox", name="Corrupt prompt")
    box.fill(PAIR["corrupt"])
    box.press("Enter")
    expect(page.locator(".columns .differ")).to_have_count(1)
    assert page.locator(".columns .differ span").all_inner_texts() == ["1", "cat", "mat"]
    patch(page)
    page.reload()  # the job goes on
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.locator(".heatmaplayer image")).to_be_visible()
    (run,) = RunStore(tmp_path / "runs").list()
    page.wait_for_url(re.compile(run.id))
    assert address(page) == {"effects": run.id}
    other = new_page()
    other.goto(f"{page.url}&share=1")
    expect(other.locator(".heatmaplayer image")).to_be_visible()
    expect(other.get_by_role("textbox", name="Clean prompt")).to_have_value(PAIR["clean"])
    expect(other.get_by_text("Unit: share of source − base")).to_be_visible()


@pytest.mark.slow
def test_a_cancelled_job_shows_what_it_had_finished(page, own_server: str, tmp_path: Path):
    page.goto(f"{own_server}/patching?{urlencode(PAIR)}")
    patch(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("What was finished is run")).to_be_visible()
    expect(page.get_by_text("This run is partial")).to_be_visible()
    expect(page.locator(".heatmaplayer image")).to_be_visible()
    (run,) = RunStore(tmp_path / "runs").list()
    assert run.title and run.title.startswith("partial: ")


def test_hostile_tokens_are_text_above_the_map_and_on_its_axis(page, own_server: str):
    texts = {"clean": f"the {HOSTILE[0]}", "corrupt": f"the {HOSTILE[1]}", "answer": "a", "foil": "cat"}
    page.goto(f"{own_server}/patching?{urlencode(texts)}")
    expect(page.locator(".columns .differ .clean")).to_have_text(HOSTILE[0])
    expect(page.locator(".columns .differ .corrupt")).to_have_text(HOSTILE[1])
    page.get_by_role("button", name="Patch", exact=True).click()
    expect(page.locator(".xaxislayer-above").get_by_text("192.0.2")).to_be_visible()
    page.locator(".nsewdrag").hover(position={"x": 150, "y": 60})
    expect(page.locator(".hoverlayer text").first).to_be_visible()
    page.wait_for_timeout(300)
    assert page.locator("img[src='x'], img[src*='192.0.2'], a[href*='192.0.2']").count() == 0


def test_the_first_address_that_a_server_is_asked_for_may_be_a_pages(page, new_server: Callable[[Path], str]):
    own = new_server(ROOT / "app" / "main.py")
    page.goto(f"{own}/patching?model={quote('no such model')}&clean=x&corrupt=y&answer=z")
    expect(page.get_by_role("link", name="Atlas")).to_be_visible()
    expect(page.get_by_role("textbox", name="Clean prompt")).to_have_value("x")
    expect(page.get_by_text("no such model is not a model of this page")).to_be_visible()
