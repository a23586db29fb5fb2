"""Resident memory that a cache of every site adds at 512 tokens: ours and TransformerLens', each in a fresh process."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

from common import check, start


def measure(who: str) -> None:
    import psutil
    import torch

    start(who)
    tokens = torch.randint(1000, 40_000, (1, 512), generator=torch.Generator().manual_seed(0))
    if who == "interp":
        import interp

        run = interp.load("smollm2-135m").run_with_cache
    else:
        from bench_forward import _tokenizer
        from common import reference_model
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers("smollm2", hf_model=reference_model(), tokenizer=_tokenizer())
        run = bridge.run_with_cache
    run(tokens[:, :32])
    for _ in range(2):  # the allocator's working buffers belong to the pass, not to the cache
        run(tokens)
        gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that the allocator keeps would hide what is added
    before = psutil.Process().memory_info().rss
    kept = run(tokens)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    after = psutil.Process().memory_info().rss
    last = float(kept[0].float().sum())
    print(f"RESULT {(after - before) / 1e9:.4f} {last:.2f}", flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    start("resident memory added by a cache of every site, 512 tokens, logits included")
    found = {}
    for who in ("interp", "TransformerLens"):
        done = subprocess.run([sys.executable, __file__, who], capture_output=True, text=True, check=True)
        size, total = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
        found[who] = float(size)
        print(f"  {who}: {found[who]:.3f} GB (sum of its logits: {total})", flush=True)
    check("memory of every site", found["interp"], 0.6, unit=" GB")
    print(f"TransformerLens / interp: {found['TransformerLens'] / found['interp']:.2f}×")


if __name__ == "__main__":
    main()
