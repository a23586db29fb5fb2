"""From a GGUF file to first logits in a running process, against the transformers library; tokenizers included."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from common import TEXT, check, gguf_path, start


def timed(run: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def main() -> None:
    start("GGUF to first logits (all libraries already imported)")
    import os

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import interp
    from interp.families.converted import wait_for_writes

    path, cache = gguf_path(), Path(os.environ["INTERP_CACHE"])
    torch.randn(64, 64) @ torch.randn(64, 64)
    path.read_bytes()  # the file is in memory for all
    first, later = [], []
    for _ in range(3):
        shutil.rmtree(cache, ignore_errors=True)
        seconds, logits = timed(lambda: interp.load(path)(TEXT))
        first.append(seconds)
        wait_for_writes()
        seconds, again = timed(lambda: interp.load(path)(TEXT))
        later.append(seconds)
        assert isinstance(logits, torch.Tensor) and isinstance(again, torch.Tensor)
        assert torch.equal(logits, again)

    def peer() -> torch.Tensor:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        return model(tokenizer(TEXT, return_tensors="pt").input_ids).logits

    theirs, reference = timed(peer)
    assert isinstance(reference, torch.Tensor)
    print(f"  transformers: {theirs:.2f} s")
    print(f"  interp, first load: {', '.join(f'{x:.2f}' for x in first)} s")
    print(f"  interp, later loads: {', '.join(f'{x:.2f}' for x in later)} s")
    print(f"  largest logit difference: {(logits - reference).abs().max():.2g}")
    check("first load", sorted(first)[1], 4, unit=" s")
    check("later load", sorted(later)[1], 1, unit=" s")
    print(f"transformers / first load: {theirs / sorted(first)[1]:.1f}×")


if __name__ == "__main__":
    main()
