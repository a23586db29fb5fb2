"""Where numbers come from: the versions and threads that computed them, and the model's hash."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import metadata
from typing import Any

from interp.model.identity import model_hash

__all__ = ["model_hash", "provenance"]

# The packages that a number may depend on; those that are not installed are left out.
_PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "safetensors", "tokenizers", "gguf", "einops", "xarray")


def provenance() -> dict[str, Any]:
    """Versions, interpreter, system and threads: what may change a number. Nothing names the machine or its user."""
    versions = {"interp": sys.modules["interp"].__version__, **_installed()}  # of the code that runs, installed or not
    torch = sys.modules.get("torch")  # results that were made without it do not depend on its threads
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "versions": versions,
    }


@cache
def _installed() -> dict[str, str]:
    """Asked once: a look at nine distributions takes as long as a small job of a sweep."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
