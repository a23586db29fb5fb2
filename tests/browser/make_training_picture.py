"""The picture of the page Training for the README: `python tests/browser/make_training_picture.py STORE [FOLDER]`.

Serves the app over a store that holds a played training (`interp emergence FOLDER --store STORE`) and writes
training.png, below 300 KB: the checkpoint nearest to where the loss is halfway, or `--step`, and the best head of a
kind.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from make_screenshot import shoot  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from serving import ROOT, serve  # noqa: E402

from interp.runs.store import RunStore  # noqa: E402


def address_of(store: RunStore, kind: str, step: int | None) -> str:
    """The page at a checkpoint of the newest playback."""
    runs = [run for run in store.list() if run.status == "ok"]
    played = next((run for run in runs if run.kind == "playback"), None)
    if played is None:
        raise SystemExit(f"{store.path} holds no playback. Make one: interp emergence FOLDER --store {store.path}")
    found = store.open(played.id).results()
    if step is None:
        losses = found.losses.pivot(index="step", columns="group", values="value")
        change = (losses.iloc[-1] - losses.iloc[0]).abs().idxmax()
        middle = (losses[change].iloc[0] + losses[change].iloc[-1]) / 2
        step = int((losses[change] - middle).abs().idxmin())
    return f"training?training={played.id}&step={step}&train_kind={kind}"


def make(store: Path, folder: Path, *, kind: str, step: int | None, width: int, height: int, dark: bool) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium on this machine: `make browser` installs one where it may.")
    folder.mkdir(parents=True, exist_ok=True)
    asked = address_of(RunStore(store), kind, step)
    with (
        tempfile.TemporaryDirectory() as scratch,
        serve(ROOT / "app" / "main.py", store, log=Path(scratch) / "log") as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.goto(f"{address}/{asked}")
        page.locator(".player .now b").wait_for()
        shoot(page, folder / "training.png")
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store of runs")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs", help="where the picture goes")
    parser.add_argument("--kind", default="induction")
    parser.add_argument("--step", type=int, default=None)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1180)
    parser.add_argument("--dark", action="store_true")
    chosen = parser.parse_args()
    options = {"kind": chosen.kind, "step": chosen.step, "width": chosen.width, "height": chosen.height}
    make(chosen.store, chosen.folder, **options, dark=chosen.dark)
