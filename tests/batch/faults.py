"""Analyses that go wrong, each in its way, and one that costs nothing: what a sweep's faults are tried with."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pandas as pd

from interp.batch.analyses import Analysis, Ask
from interp.results.tables import HeadTable


def table(ask: Ask, n: int = 5) -> HeadTable:
    values = np.random.default_rng(ask.seed).random(n)
    frame = pd.DataFrame({"token": [f"t{i}" for i in range(n)], "value": values})
    return HeadTable(frame, "quick", "value", ("token",), "everything", {"model": ask.model.cfg.model_name})


def quick(ask: Ask) -> HeadTable:
    time.sleep(ask.options["seconds"])
    return table(ask)


def big(ask: Ask) -> HeadTable:
    return table(ask, 20_000)


def die(ask: Ask) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def hog(ask: Ask) -> Any:
    return np.ones(ask.options["bytes"], dtype=np.uint8)


def tensor_hog(ask: Ask) -> Any:
    import torch

    return torch.ones(ask.options["bytes"], dtype=torch.uint8)


def wrong(ask: Ask) -> Any:
    raise ValueError(f"seed {ask.seed} is unlucky")


def first(found: HeadTable) -> dict[str, float]:
    return {"first": float(found.frame["value"].iloc[0])}


QUICK = Analysis("quick", "nothing", quick, "never", {"seconds": 0.0}, found=first)
BIG = Analysis("big", "a large table", big, "never")
DIE = Analysis("die", "ends its process", die, "never")
HOG = Analysis("hog", "takes memory", hog, "never", {"bytes": 8 << 30})
TENSOR_HOG = Analysis("tensor_hog", "takes memory by torch", tensor_hog, "never", {"bytes": 8 << 30})
WRONG = Analysis("wrong", "raises", wrong, "never")
ALL = ("quick", "big", "die", "hog", "tensor_hog", "wrong")
