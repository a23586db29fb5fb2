"""Figures of speed, printed; the bounds are wide, since other work may run beside the tests. What is held exactly: no
hover says a word to the server, and long prompts stay usable. `tests/benchmarks/bench_app.py` measures on a quiet
machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
import speed  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WORDS = "the cat sat on a mat"


def test_pages_come_quickly_from_a_warm_server(new_page: Callable[[], Page], server: str, capsys):
    earlier = new_page()
    speed.first_page(earlier, server)
    speed.switches(earlier)  # every page once, as on a server that is in use
    page = new_page()
    first = speed.first_page(page, server)
    found = speed.switches(page)
    with capsys.disabled():
        print(f"\nfirst page {first:.2f} s (goal 3)")
        for name, (shell, chart) in found.items():
            print(f"to {name}: shell and table {shell:.2f} s (goal 1.5), chart {chart:.2f} s (goal 2.5)")
    assert first < 15 and max(chart for _, chart in found.values()) < 15


@pytest.mark.parametrize("n", [512, 1024])
def test_long_prompts_are_hovered_without_the_server_and_clicked_into_detail(page, server, capsys, n):
    sent = speed.frames(page)
    opened = speed.open_head(page, server, WORDS, "1.2", n)
    page.locator(".grid .plot canvas").wait_for()
    page.wait_for_timeout(1_500)
    before = len(sent)
    hovers, points = speed.hover(page), speed.grid_hover(page)
    click = speed.click_on_token(page, n - 3)
    page.wait_for_timeout(500)
    assert len(sent) == before > 0
    assert page.locator(".tokens span[data-i]").count() == n
    told, edge, explained = speed.click_on_edge(page, 1)
    with capsys.disabled():
        print(f"\n{n} tokens: drawn after {opened:.2f} s; hover median {hovers[30]:.1f} ms, most {hovers[-1]:.1f} ms "
              f"(goal 16); over the layer's pictures {points[30]:.1f} and {points[-1]:.1f} ms; click to detail "
              f"{click:.0f} ms, to the edge's own {told:.0f} ms (goal 300 at 512), chosen by the server after "
              f"{1000 * edge:.0f} ms, explained after {1000 * explained:.0f} ms")  # fmt: skip
    assert hovers[30] < 200 and points[30] < 200 and max(click, told) < 3_000 and explained < 30


def test_the_threshold_and_the_map_answer_without_the_server(page, server):
    sent = speed.frames(page)
    page.goto(f"{server}/?kind=induction")
    canvas = page.locator(".map .plot canvas[data-geometry]")
    canvas.wait_for()
    page.wait_for_timeout(1_000)
    before = len(sent)
    box = canvas.bounding_box()
    for share in (0.3, 0.5, 0.7, 0.9):
        canvas.hover(position={"x": share * box["width"], "y": share * box["height"]})
    page.wait_for_timeout(500)
    assert len(sent) == before > 0
