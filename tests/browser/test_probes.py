"""The page Probes in a real browser: tokens coloured along a probe, and hostile names that stay text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from probed import TARGET, probed
from serving import HOSTILE

from interp.runs.store import RunStore

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
pytestmark = pytest.mark.browser
HERE = Path(__file__).parent


def test_a_text_is_coloured_along_a_probe_and_names_are_literal(
    page, new_server: Callable[[Path], str], tmp_path: Path
) -> None:
    results, use = probed()
    store = RunStore(tmp_path / "runs")
    store.save(results, spec={}, title=f"probes {HOSTILE[0]}")
    store.save(use, spec={}, title="use")
    address = new_server(HERE / "tiny_app.py")
    page.goto(f"{address}/probes?bos=0&place=resid_pre.1&prompt={quote(' '.join(['the', 'cat', *HOSTILE]))}")
    tokens = page.locator(".strip .tokens li")
    tokens.first.wait_for()
    assert tokens.count() == 2 + len(HOSTILE) and tokens.nth(2).inner_text() == HOSTILE[0]
    colours = tokens.evaluate_all("items => items.map(item => getComputedStyle(item).backgroundColor)")
    assert len(set(colours)) > 1 and all(one.startswith("rgb") for one in colours)
    page.get_by_text(use.verdict).first.wait_for()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    assert TARGET in page.locator("body").inner_text()
    assert page.locator("img[src='x'], img[src*='192.0.2'], a[href*='192.0.2']").count() == 0
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(700)
    wide = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1] and page.locator("[data-testid=stException]").count() == 0
