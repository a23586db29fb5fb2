"""`interp app`: the browser app, on this machine only."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from interp.errors import InputError, StorageError
from interp.runs.store import RunStore

__all__ = ["STORE_VARIABLE", "app_command", "open_app"]

STORE_VARIABLE = "INTERP_STORE"  # how the app learns which folder of runs to show
_HOST, _PORT, _PORTS_TRIED = "127.0.0.1", 8501, 20
# On the command line they win over any config.toml; a wheel carries none of its own.
_SAFE = (
    f"--server.address={_HOST}",
    f"--browser.serverAddress={_HOST}",
    "--server.allowedHosts=localhost",  # given twice, it is a list: a page elsewhere cannot reach the socket
    f"--server.allowedHosts={_HOST}",
    "--server.headless=true",
    "--server.enableCORS=true",
    "--server.enableXsrfProtection=true",
    "--server.enableStaticServing=false",
    "--server.maxUploadSize=5",
    "--server.fileWatcherType=none",
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=viewer",
    "--theme.light.primaryColor=#2f6fb0",
    "--theme.dark.primaryColor=#4a90d0",
    "--client.showErrorDetails=type",
)


def open_app(
    port: Annotated[
        int | None, typer.Option(help=f"Port on {_HOST}. The first free one from {_PORT}, if none.")
    ] = None,
    store: Annotated[Path, typer.Option(help="The folder of runs to show.")] = Path("runs"),
) -> None:
    """Open the browser app on 127.0.0.1; Ctrl-C ends it."""
    RunStore(store).list()  # a file or an unreadable folder is said here, not in the browser
    main = _main_page()
    chosen = _free_port() if port is None else _must_be_free(port)
    print(f"open http://{_HOST}:{chosen} in a browser; Ctrl-C ends the app", file=sys.stderr, flush=True)
    _become(app_command(main, chosen), {STORE_VARIABLE: str(store.expanduser().absolute())})


def app_command(main: Path, port: int) -> list[str]:
    """The command that serves a page of streamlit's to this machine and nobody else."""
    return [sys.executable, "-m", "streamlit", "run", str(main), f"--server.port={port}", *_SAFE]


def _main_page() -> Path:
    """app/main.py, beside this package; the app is run by path and never imported here."""
    places = [Path(__file__).resolve().parents[2] / "app"]
    if spec := importlib.util.find_spec("app"):
        places += map(Path, spec.submodule_search_locations or ())
    for place in places:
        if (place / "main.py").is_file():
            return place / "main.py"
    raise StorageError(f"The browser app is not installed: there is no main.py in {places[0]}. Install interp anew.")


def _must_be_free(port: int) -> int:
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port} is no port. Give a number from 1024 to 65535.")
    if reason := _taken(port):
        raise InputError(f"Port {port} on {_HOST} cannot be used: {reason}. Give another, or leave --port out.")
    return port


def _free_port() -> int:
    for port in range(_PORT, _PORT + _PORTS_TRIED):
        if not _taken(port):
            return port
    raise InputError(f"Ports {_PORT} to {_PORT + _PORTS_TRIED - 1} on {_HOST} are all in use. Give one with --port.")


def _taken(port: int) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port that was just left is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _become(command: list[str], variables: dict[str, str]) -> None:
    """Run a command in this process' place, so that whoever ends this one ends the app."""
    environment = {**os.environ, **variables}
    if os.name == "posix":
        os.execve(command[0], command, environment)
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
