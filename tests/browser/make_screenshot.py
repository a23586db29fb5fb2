"""Pictures of the app for the README: `python tests/browser/make_screenshot.py STORE [FOLDER]`.

Serves the app over a store with at least one run of heads of a model that loads by name, and writes atlas.png,
compared.png (two kinds), head.png, layer.png (a layer's heads, and an ablation), flow.png, patching.png, explore.png
and runs.png, each below 300 KB. For patching a pair is patched in a copy of the store. With --dark
they show the dark look.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from playwright.sync_api import Page, sync_playwright  # noqa: E402
from serving import ROOT, serve  # noqa: E402

MAX_BYTES = 300_000


def shoot(page: Page, path: Path) -> None:
    """Save what the page shows, as soon as nothing moves any more."""
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(1_000)
    page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes, more than {MAX_BYTES:,}.")
    print(f"{path}: {size:,} bytes")


def layer(page: Page, path: Path) -> None:
    """From the ablation of the head that is open down to the heads of its layer."""
    page.get_by_role("button", name="Ablate it now").click()
    page.get_by_text("set to its mean").first.wait_for()
    page.locator(".grid .plot canvas[data-geometry]").hover()
    page.get_by_role("heading", name="Ablate it now").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollBy(0, 260)")
    shoot(page, path)


def flow(page: Page, path: Path) -> None:
    """The graph with one node pinned."""
    canvas = page.locator(".flow canvas[data-geometry]")
    canvas.wait_for()
    canvas.focus()
    for key in ("ArrowLeft", "Enter"):
        canvas.press(key)
    shoot(page, path)


def patched(store: Path, copy: Path) -> Path:
    """A copy of a store with one more run: the pair that the Patching page begins with."""
    shutil.copytree(store, copy)
    said = "When Mary and John went to the store, {} gave a drink to"
    texts = {"clean": said.format("John"), "corrupt": said.format("Mary"), "answer": "Mary", "foil": "John"}
    options = [part for name, text in texts.items() for part in (f"--{name}", text)]
    main = "from interp.cli import main; main()"
    command = [sys.executable, "-c", main, "patch", "smollm2-135m", *options, "--store", str(copy)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return copy


def make(store: Path, folder: Path, *, width: int, height: int, dark: bool) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium on this machine: `make browser` installs one where it may.")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        serve(ROOT / "app" / "main.py", patched(store, Path(scratch) / "runs"), log=Path(scratch) / "log") as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.goto(f"{address}/?kind=induction")
        canvas = page.locator(".plot canvas")
        canvas.hover()
        box = json.loads(canvas.get_attribute("data-geometry") or "")
        canvas.hover(position={"x": box["left"] + 6.5 * box["w"], "y": box["top"] + 18.5 * box["h"]})
        shoot(page, folder / "atlas.png")
        page.goto(f"{address}/head?head=18.6")
        page.locator(".tokens span").first.wait_for()
        shoot(page, folder / "head.png")
        layer(page, folder / "layer.png")
        page.goto(f"{address}/?kind=induction")
        canvas.wait_for()
        page.wait_for_url(re.compile("run="))
        run = parse_qs(urlsplit(page.url).query)["run"][0]
        page.goto(f"{address}/?run={run}&kind=induction&against_run={run}&against=previous_token")
        page.locator(".plot canvas").nth(1).wait_for()
        shoot(page, folder / "compared.png")
        page.goto(f"{address}/flow")
        flow(page, folder / "flow.png")
        page.set_viewport_size({"width": width, "height": max(height, 1220)})
        page.goto(f"{address}/patching")
        page.locator(".heatmaplayer image").wait_for()
        page.locator(".columns .differ").wait_for()
        shoot(page, folder / "patching.png")
        page.set_viewport_size({"width": width, "height": max(height, 1100)})
        page.goto(f"{address}/explore?prompt=The+capital+of+France+is&answer_token=Paris&foil_token=London")
        page.locator("[data-testid=stPlotlyChart] .bars").wait_for()
        shoot(page, folder / "explore.png")
        page.goto(f"{address}/runs")
        page.get_by_text("What it found").wait_for()
        shoot(page, folder / "runs.png")
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store of runs")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs", help="where the pictures go")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    chosen = parser.parse_args()
    make(chosen.store, chosen.folder, width=chosen.width, height=chosen.height, dark=chosen.dark)
