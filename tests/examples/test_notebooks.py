"""The notebooks in `examples/` run from top to bottom without a network, and what they claim is what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

import interp
from interp.families import converted

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
OUTSIDE = re.compile(
    r"""(?:src|href)=\\?["'](?:https?:)?//|url\((?:https?:)?//|@import|fetch\(|XMLHttpRequest|import\("""
)

# No cell can reach anything but this machine: the kernel talks to us over loopback.
CUT = """
import socket as _socket
_connect = _socket.socket.connect


def _local_only(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a request to {address}")
    return _connect(self, address)


_socket.socket.connect = _local_only
"""


def executed(name: str, monkeypatch: pytest.MonkeyPatch, smollm2: object, *, quick: bool) -> Any:
    """A notebook after a run in a kernel of its own, with the network cut."""
    from nbclient import NotebookClient

    converted.wait_for_writes()  # so that the kernel finds what this process has converted
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("QUICK", "1" if quick else "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "examples" / name, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(CUT))
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    return notebook


def texts(notebook: Any) -> str:
    """All that was printed."""
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return "".join(one["text"] for one in outputs if one.output_type == "stream" and one.name == "stdout")


def asks_for_nothing_outside(notebook: Any) -> bool:
    pages = [
        str(page)
        for cell in notebook.cells
        if cell.cell_type == "code"
        for one in cell.outputs
        for kind, page in one.get("data", {}).items()
        if kind != "text/plain"
    ]
    assert pages
    return not any(OUTSIDE.search(page) for page in pages)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole_small_and_closed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run once, in order
    assert not any(one.output_type == "error" for cell in cells for one in cell.outputs)
    assert path.stat().st_size < 500_000 and asks_for_nothing_outside(notebook)
    assert "## What does not hold" in notebook.cells[-1].source


def test_the_search_for_requests_finds_them() -> None:
    for page in ('<script src="https://cdn.x/y.js">', "<img src='//x/y.png'>", "<style>@import 'x'</style>"):
        assert OUTSIDE.search(page)
    assert not OUTSIDE.search('<a id="x"></a><td style="background:rgba(1,2,3,.5)">http</td>')


def test_results_show_themselves_without_the_network(smollm2: Any) -> None:
    pairs = interp.PromptPairs.from_text(
        smollm2, clean="The capital of France is", corrupt="The capital of Spain is", answer=" Paris", foil=" Madrid"
    )
    effects = interp.patch(smollm2, pairs, "resid_pre", over=("layer",))
    page = effects._repr_html_()
    assert "<table" in page and not OUTSIDE.search(page)


def test_the_notebook_on_induction_says_what_its_run_found(monkeypatch: pytest.MonkeyPatch, smollm2: Any) -> None:
    notebook = executed("from_prompt_to_claim_induction.ipynb", monkeypatch, smollm2, quick=True)
    said = texts(notebook)
    assert re.search(r"raises the loss of\nrepeated tokens .*18\.6 \(\d", said)
    assert re.search(r"do not pass: .*17\.4", said)
    rise = re.search(r"top four together: ([\d.]+) nats \(([\d.]+) to", said)
    random = re.search(r"random sets of the same layers by -?[\d.]+ to ([\d.]+)", said)
    assert rise and random and float(rise[2]) > float(random[1])
    assert asks_for_nothing_outside(notebook)


@pytest.mark.slow
def test_the_notebook_on_the_capital_says_what_its_run_found(monkeypatch: pytest.MonkeyPatch, smollm2: Any) -> None:
    notebook = executed("capital_of_france.ipynb", monkeypatch, smollm2, quick=True)
    said = texts(notebook)
    assert "logit of ' Paris' − ' London': 4.13" in said
    assert re.search(r"that did not choose them, the heads .*23\.4", said)
    assert re.search(r"look most at the country, \d carry less than 5%: .*16\.0", said)
    assert asks_for_nothing_outside(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_run_in_full_repeats_the_text_that_is_committed(
    path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Any
) -> None:
    committed = texts(nbformat.read(path, as_version=4))
    number = re.compile(r"-?\d+\.\d+")
    again = texts(executed(path.name, monkeypatch, smollm2, quick=False))
    assert number.sub("#", again) == number.sub("#", committed)
    old, new = ([float(one) for one in number.findall(text)] for text in (committed, again))
    assert new == pytest.approx(old, abs=0.02)
