"""The page Training in a real browser: playback without a word to the server, keys, attention, the address."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from grown import STEPS, grown, played
from serving import HOSTILE

from interp.runs.store import RunStore

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
pytestmark = pytest.mark.browser
HERE = Path(__file__).parent


@pytest.fixture
def training(new_server: Callable[[Path], str], tmp_path: Path) -> str:
    """The page over a store with one training."""
    store = RunStore(tmp_path / "runs")
    store.save(grown(), spec={}, title="measured")
    store.save(played(), spec={}, title=f"played {HOSTILE[0]}")
    return f"{new_server(HERE / 'tiny_app.py')}/training"


def step(page) -> str:
    return page.locator(".player").get_attribute("data-step")


def rested(page) -> None:
    """Wait until the page has been told where the reader is, and has drawn what follows."""
    page.wait_for_timeout(700)
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(300)


def test_a_training_is_played_by_keys_and_slider_and_its_address_brings_it_back(page, training) -> None:
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.goto(training)
    page.locator(".player .now b").wait_for()
    assert step(page) == "300"
    rested(page)
    slider = page.locator(".player .slider")
    slider.focus()
    before = len(sent)
    for key, there in (("Home", "0"), ("ArrowRight", "10"), ("ArrowRight", "300"), ("ArrowLeft", "10")):
        page.keyboard.press(key)
        assert step(page) == there, key
    assert len(sent) == before  # nothing of this needed the server
    now = page.locator(".series tr", has_text="loss, all").locator("td").nth(1)
    assert float(now.inner_text()) == pytest.approx(grown().series("loss", "all")[10], abs=0.006)
    geometry = json.loads(page.locator(".player .map").get_attribute("data-geometry"))
    at = {"x": geometry["left"] + 2.5 * geometry["w"], "y": geometry["top"] + 1.5 * geometry["h"]}
    page.locator(".player .map").click(position=at)
    assert page.locator(".player .which").inner_text() == "Attention of 1.2"
    tokens = page.locator(".player .words.q span")
    assert tokens.nth(2).inner_text() == HOSTILE[0] and page.locator("img[src='x']").count() == 0
    tokens.nth(5).hover()
    heaviest = played().pattern(10, "1.2")[5].argmax()
    assert (
        f"at 5 reads {played().about['tokens'][heaviest]} at {heaviest}" in page.locator(".readout.token").inner_text()
    )
    tokens.nth(5).click()
    tokens.nth(1).hover()
    assert tokens.nth(5).get_attribute("aria-selected") == "true"  # locked
    page.locator(".player .read-by").click()
    assert "at 5 is read by" in page.locator(".readout.token").inner_text()
    assert len(sent) == before
    page.wait_for_url("**step=10&train_head=1.2&**")
    assert len(sent) > before
    page.goto(page.url)
    page.locator(".player .now b").wait_for()
    assert step(page) == "10" and page.locator(".player .which").inner_text() == "Attention of 1.2"


@pytest.mark.slow
def test_it_plays_to_the_end_and_stops_and_space_pauses(page, training) -> None:
    page.goto(f"{training}?step=0")
    page.locator(".player .now b").wait_for()
    rested(page)
    page.locator(".player .speed").select_option("600")
    page.locator(".player .slider").focus()
    page.keyboard.press(" ")
    assert page.locator(".player .play").inner_text() == "Pause"
    page.keyboard.press(" ")
    held = step(page)
    page.wait_for_timeout(1_400)
    assert step(page) == held and page.locator(".player .play").inner_text() == "Play"
    page.locator(".player .play").click()
    page.wait_for_timeout(2_000)
    assert step(page) == "300" and page.locator(".player .play").inner_text() == "Play"
    page.locator(".player .play").click()  # from the beginning again
    assert step(page) == "0"
    page.locator(".player .play").click()
    page.wait_for_url("**step=0&**")


@pytest.mark.slow
def test_charts_lens_and_narrow_pages_work_by_pointer_and_key(page, training) -> None:
    page.goto(training)
    page.locator(".player .now b").wait_for()
    rested(page)
    chart = page.locator(".player .above svg")
    chart.click(position={"x": 46, "y": 60})
    assert step(page) == "0"
    page.locator(".player .panel").select_option("attention, sum of all heads")
    page.locator(".player .lower svg").get_by_text("attention, sum of all heads").wait_for()
    page.locator(".player .kind").select_option("previous_token")
    page.locator(".player .map").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator(".player .which").inner_text() == "Attention of 1.0"
    cells = page.locator(".lens tbody tr").nth(1).locator("td")
    own = played().read(0).query("layer == 3").reset_index()
    assert cells.nth(4).inner_text().startswith(str(own["likeliest"][4]).strip())
    cells.nth(4).click()
    assert page.locator(".player .words.q span").nth(4).get_attribute("aria-selected") == "true"
    assert page.locator(".player .row.locked").count() == 1
    page.locator(".lens .scroll").focus()
    page.keyboard.press("ArrowUp")
    page.locator("td.cursor").wait_for()
    page.wait_for_url("**train_head=1.0&train_kind=previous_token*")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(700)
    wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1] and page.locator("[data-testid=stException]").count() == 0
    assert step(page) == "0"  # what was chosen stays


@pytest.mark.slow
def test_the_player_is_there_again_where_it_was_left(page, training) -> None:
    page.goto(training)
    page.locator(".player .now b").wait_for()
    rested(page)
    page.locator(".player .slider").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**step={STEPS[1]}&**")
    page.get_by_role("link", name="Atlas").click()
    page.wait_for_function("!location.pathname.includes('training')")
    page.locator(".player").wait_for(state="detached")
    page.get_by_role("link", name="Training").click()
    page.locator(".player .now b").wait_for()
    assert step(page) == str(STEPS[1])
    page.wait_for_url(f"**step={STEPS[1]}&**")


@pytest.mark.slow
def test_the_pictures_of_the_page_can_be_saved(page, training) -> None:
    page.goto(training)
    page.locator(".player .now b").wait_for()
    rested(page)
    with page.expect_download() as kept:
        page.get_by_role("button", name="SVG").click()
    text = Path(kept.value.path()).read_text()
    assert text.startswith("<svg") and "loss, nats" in text
