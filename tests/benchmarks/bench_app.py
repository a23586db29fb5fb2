"""Seconds and milliseconds that the browser app takes to answer: `python tests/benchmarks/bench_app.py [STORE]`.

Without a store, a tiny model stands for the real one: what is measured is the app and the browser. With a store of runs
of a model that loads by name, the model's own passes count too. Needs Chromium; run it on a quiet machine.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE.parent / "browser")]

import speed  # noqa: E402
from serving import ROOT, serve, tiny_store  # noqa: E402


def main(store: Path | None) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("app: skipped, there is no Chromium on this machine")
        return
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        main_page = ROOT / "app" / "main.py" if store else ROOT / "tests" / "browser" / "tiny_app.py"
        if store is None:
            tiny_store(Path(scratch) / "runs")
        with serve(main_page, store or Path(scratch) / "runs", log=Path(scratch) / "log") as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

            def page():
                made = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
                made.set_default_timeout(120_000)
                return made

            print("app" + (f" over {store}" if store else " with a tiny model"))
            print(f"  first page, cold server  {speed.first_page(page(), address):6.2f} s")
            speed.switches(_there(page(), address))  # every page once, as on a server that is in use
            warm = page()
            print(f"  first page, warm server  {speed.first_page(warm, address):6.2f} s   (goal 3)")
            for name, (shell, chart) in speed.switches(warm).items():
                print(f"  to {name:22s}{shell:6.2f} s to shell and table (goal 1.5), {chart:.2f} s to chart (goal 2.5)")
            for n in (64, 512, 1024):
                _head(page(), address, n)
            browser.close()


def _there(page, address: str):
    speed.first_page(page, address)
    return page


def _head(page, address: str, n: int) -> None:
    words = "the cat sat on a mat"
    opened = speed.open_head(page, address, words, "1.2", n)
    page.locator(".grid .plot canvas[data-geometry]").wait_for()
    page.wait_for_timeout(1_500)
    hovers, points = speed.hover(page), speed.grid_hover(page)
    click = speed.click_on_token(page, n - 3)
    told, edge, explained = speed.click_on_edge(page, 1)
    print(
        f"  head on {n} tokens: drawn after {opened:.2f} s; hover {hovers[30]:.1f} ms (most {hovers[-1]:.1f}; goal 16)"
    )
    print(f"    over the layer's pictures {points[30]:.1f} ms (most {points[-1]:.1f}); click to detail {click:.1f} ms")
    print(
        f"    click on an edge to what is known of it {told:.1f} ms (goal 300 at 512); chosen by the server after "
        f"{1000 * edge:.0f} ms, explained after {1000 * explained:.0f} ms"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
