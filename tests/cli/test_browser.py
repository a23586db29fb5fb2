"""`interp app` serves this machine and nobody else, with settings that a user's own config cannot loosen."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from interp.cli.browser import STORE_VARIABLE, app_command

OPTIONS = """
import json, sys
from streamlit import config
known = config.get_config_options()
print(json.dumps({name: [known[name].type.__name__, known[name].multiple] for name in sys.argv[1:] if name in known}))
"""
FAKE_EXEC = """
import json, os
def become(path, command, environment):
    print(json.dumps({"command": command, "store": environment.get("INTERP_STORE")}), flush=True)
    raise SystemExit(0)
os.execve = become
"""


def test_every_flag_is_an_option_of_the_installed_streamlit():
    flags = [one.removeprefix("--").split("=") for one in app_command(Path("main.py"), 8501)[5:]]
    names = [name for name, _ in flags]
    code = [sys.executable, "-W", "ignore", "-c", OPTIONS, *names]
    known = json.loads(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
    assert set(known) == set(names)
    assert all(known[name][1] for name in names if names.count(name) > 1), "only a list may be given twice"
    assert all(value in ("true", "false") for name, value in flags if known[name][0] == "bool")


def test_the_flags_that_keep_the_app_on_this_machine_are_given(tmp_path):
    given: dict[str, list[str]] = {}
    for part in app_command(tmp_path / "main.py", 8501):
        if part.startswith("--"):
            name, _, value = part.removeprefix("--").partition("=")
            given.setdefault(name, []).append(value)
    assert given["server.address"] == ["127.0.0.1"] and given["server.allowedHosts"] == ["localhost", "127.0.0.1"]
    assert given["server.enableXsrfProtection"] == given["server.enableCORS"] == ["true"]
    assert given["server.enableStaticServing"] == given["browser.gatherUsageStats"] == ["false"]
    assert int(given["server.maxUploadSize"][0]) <= 5 and given["client.showErrorDetails"] == ["type"]


def test_the_app_is_started_by_path_with_the_store(run, tmp_path):
    done = run("app", "--port", free_port(), "--store", "mine", code=FAKE_EXEC)
    started = json.loads(done.out)
    assert started["store"] == str(tmp_path / "mine") and STORE_VARIABLE == "INTERP_STORE"
    assert started["command"][1:4] == ["-m", "streamlit", "run"]
    assert Path(started["command"][4]) == Path(__file__).resolve().parents[2] / "app" / "main.py"
    assert "http://127.0.0.1:" in done.err and not (tmp_path / "mine").exists()


def test_a_port_in_use_is_refused_and_without_one_the_next_is_taken(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("app", "--port", port, code=FAKE_EXEC)
        assert done.code == 2 and f"Port {port} on 127.0.0.1 cannot be used: Address already in use" in done.err
        done = run("app", code=f"import interp.cli.browser as b\nb._PORT = {port}\n" + FAKE_EXEC)
        assert f"--server.port={port}" not in json.loads(done.out)["command"]


def test_a_missing_app_is_said(run):
    code = "from pathlib import Path\nPath.is_file = lambda self: False\n"
    done = run("app", code=code)
    assert done.code == 2 and "The browser app is not installed" in done.err


@pytest.mark.slow
def test_streamlit_serves_this_machine_and_refuses_foreign_pages(tmp_path):
    (tmp_path / "main.py").write_text("import streamlit as st\nst.text('hello')\n")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "secret.txt").write_text("secret")
    (tmp_path / ".streamlit").mkdir()
    config = "[server]\naddress = '0.0.0.0'\nenableXsrfProtection = false\nallowedHosts = ['*']\n"
    config += "enableStaticServing = true\n"
    (tmp_path / ".streamlit" / "config.toml").write_text(config)
    port = free_port()
    command = app_command(tmp_path / "main.py", port)
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, "HOME": str(tmp_path)}
        )
    try:
        assert wait_for(f"http://127.0.0.1:{port}/_stcore/health") == b"ok", (tmp_path / "log").read_text()
        assert websocket_status(port, host=f"127.0.0.1:{port}") == 101
        assert websocket_status(port, host="evil.example") == 403
        assert websocket_status(port, host=f"127.0.0.1:{port}", origin="http://evil.example") == 403
        assert b"secret" not in wait_for(f"http://127.0.0.1:{port}/app/static/secret.txt", seconds=1)
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in others - {"127.0.0.1", "127.0.1.1"}:
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2).close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, seconds: float = 60) -> bytes:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return b""


def websocket_status(port: int, host: str, origin: str | None = None) -> int:
    """The status that the socket's handshake is answered with."""
    lines = [
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}",
        "Sec-WebSocket-Version: 13",
        f"Origin: {origin or f'http://127.0.0.1:{port}'}",
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(line.recv(100).split()[1])
