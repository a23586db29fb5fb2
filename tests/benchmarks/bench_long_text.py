"""Attention scores of every head on one text of 4,096 tokens: seconds, and peak memory above the weights."""

from __future__ import annotations

import resource
import time

from common import check, start


def main() -> None:
    start("head scores on 4,096 tokens, patterns in chunks")
    import psutil
    import torch

    import interp
    from interp.heads.patterns import TARGETS, attention_shares
    from interp.model.tokens import Batch

    model = interp.load("smollm2-135m")
    tokens = torch.randint(1000, 40_000, (1, 2048), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    model(tokens[:, :16])
    for parameter in model.parameters():
        parameter.sum()  # every page of the weights is in memory before
    before = psutil.Process().memory_info().rss / 1e9
    began = time.perf_counter()
    shares = attention_shares(model, Batch(tokens), TARGETS)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    best = shares["prefix_match"][0].flatten().argmax()
    print(f"  {seconds:.1f} s; best prefix matching head {best // 9}.{best % 9}: {shares['prefix_match'].max():.2f}")
    check("peak memory above the weights", peak - before, 2.0, unit=" GB")


if __name__ == "__main__":
    main()
