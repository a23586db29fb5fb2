"""One server and one Chromium for all browser tests; a page of its own, watched, for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serving import serve, task_scores, tiny_store

from interp.runs.store import RunStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Streamlit asks for these below the page's own path first, when a page other than the default one is opened directly.
ALLOWED_404 = ("/_stcore/health", "/_stcore/host-config")
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make setup`")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store, and the ids of its older and its newer run."""
    folder = tmp_path_factory.mktemp("runs")
    RunStore(folder).save(task_scores(), spec={}, title="tasks")  # the oldest, so that it is not what pages begin with
    return folder, *tiny_store(folder)


@pytest.fixture(scope="session")
def server(browser: Browser, runs: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app over that store, started from a folder that has an app.py of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "app.py").write_text("raise SystemExit('the wrong app')")
    with serve(HERE / "tiny_app.py", runs[0], log=folder / "server.log", cwd=folder) as address:
        yield address


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Starts servers of the test's own over the store `tmp_path / "runs"`, and gives their addresses."""
    with ExitStack() as servers:
        yield lambda main: servers.enter_context(serve(main, tmp_path / "runs", log=tmp_path / "log"))


@pytest.fixture
def own_server(new_server: Callable[[Path], str]) -> str:
    """A server of the tiny model with an empty store of its own."""
    return new_server(HERE / "tiny_app.py")


@pytest.fixture
def new_page(browser: Browser, new_server: object) -> Iterator[Callable[[], Page]]:
    """Makes pages in contexts of their own. Each must ask only its server for anything, and complain about nothing.

    It asks for `new_server` so that pages are closed before the test's servers: a page that is still loading when its
    server ends would complain.
    """
    contexts, complaints = [], []

    def watched_response(response) -> None:
        if response.status >= 400 and not response.url.split("?")[0].endswith(ALLOWED_404):
            complaints.append(f"{response.status} {response.url}")

    def watched_request(url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            complaints.append(f"asked {url}")

    def watched_console(message) -> None:
        known = "Failed to load resource" in message.text and message.location["url"].endswith(ALLOWED_404)
        if message.type == "error" and not known:
            complaints.append(f"console: {message.text}")

    def make() -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: watched_request(request.url))
        page.on("websocket", lambda socket: watched_request(socket.url))
        page.on("response", watched_response)
        page.on("console", watched_console)
        page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(new_page: Callable[[], Page]) -> Page:
    return new_page()
