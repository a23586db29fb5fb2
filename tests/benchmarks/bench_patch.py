"""Exact patching sweeps against TransformerLens' own functions on the same model, prompts and metric, with the largest
difference of the results beside each ratio; the share of the machine's matrix rate; growth; and peak memory."""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from common import TEXT, check, gguf_path, reference_model, start

import interp
from interp.families import converted

FIRST = (TEXT, "While" + TEXT[4:].replace(", John", ", Mary"))  # differs from the first token on
SHARED = (TEXT, TEXT.replace(", John", ", Mary"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of ours (the peer's functions run once)")
    parser.add_argument("--no-peer", action="store_true", help="leave TransformerLens out")
    parser.add_argument("--no-growth", action="store_true", help="leave the growth and memory tables out")
    given = parser.parse_args()
    start("exact patching sweeps")
    model = interp.load("smollm2-135m")
    peer = None if given.no_peer else _Peer(model)
    for name, site, over, bounds in (
        ("residual sweep, 30 layers × 14 positions", "resid_pre", ("layer", "pos"), (15.0, 60.0)),
        ("head sweep, 270 heads, all positions", "z", ("layer", "head"), (8.0, 20.0)),
    ):
        print(f"\n{name}")

        for which, texts, bound, share in (
            ("nothing shared", FIRST, bounds[0], 0.60),
            ("9 leading tokens shared", SHARED, bounds[1], 0.45),
        ):
            pairs = _pairs(model, [texts[0]], [texts[1]])
            seconds, effects = _timed(lambda s=site, o=over, p=pairs: interp.patch(model, p, s, o), given.runs)
            plan = interp.patch.plan(model, pairs, site, over)
            rate = _matrix_seconds(model, plan, given.runs) / seconds
            print(f"  {which}: {seconds:.2f} s, {plan.cost.cells} cells computed, {plan.cost.skipped} known to be 0")
            check("    share of the machine's rate on the same matrices", rate, share, unit="", at_least=True)
            if peer is not None:
                theirs, result = peer.sweep(site, *texts)
                difference = float(abs(effects.patched.values[0] - result).max())
                scale = max(1.0, float(abs(result).max()))
                print(f"    TransformerLens: {theirs:.1f} s; largest difference {difference:.2g} of {scale:.3g}")
                check("    times as fast", theirs / seconds, bound, at_least=True)
                assert difference <= 1e-4 * scale, "the two do not agree"
    if not given.no_growth:
        _growth(model)


class _Peer:
    """TransformerLens' patching functions, unmodified, on the same weights."""

    def __init__(self, ours: interp.HookedTransformer):
        from transformer_lens import patching
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(gguf_path().parent, gguf_file=gguf_path().name)
        self.bridge = TransformerBridge.boot_transformers("smollm2", hf_model=reference_model(), tokenizer=tokenizer)
        if hasattr(self.bridge, "enable_compatibility_mode"):
            self.bridge.enable_compatibility_mode(no_processing=True)
        self.ours, self.patching = ours, patching

    def sweep(self, site: str, clean: str, corrupt: str) -> tuple[float, Any]:
        """Seconds, and the metric of every cell."""
        ids, other = self.ours.to_tokens(clean), self.ours.to_tokens(corrupt)
        mary, john = self.ours.to_single_token(" Mary"), self.ours.to_single_token(" John")
        _, cache = self.bridge.run_with_cache(ids)

        def metric(logits: Any) -> Any:
            return logits[0, -1, mary] - logits[0, -1, john]

        name = "get_act_patch_resid_pre" if site == "resid_pre" else "get_act_patch_attn_head_out_all_pos"
        began = time.perf_counter()
        result = getattr(self.patching, name)(self.bridge, other, cache, metric)
        return time.perf_counter() - began, result.double().numpy()


def _pairs(model: interp.HookedTransformer, clean: list[str], corrupt: list[str]) -> interp.PromptPairs:
    return interp.PromptPairs.from_text(model, clean, corrupt, answer=" Mary", foil=" John")


def _timed(run: Callable[[], Any], n: int) -> tuple[float, Any]:
    """Median seconds after a warm-up, and the result."""
    found = run()
    times = []
    for _ in range(n):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times), found


def _matrix_seconds(model: interp.HookedTransformer, plan: Any, n: int) -> float:
    """Seconds of the sweep's matrix products alone: the same weights, the same heights, nothing between them."""
    import torch

    heights = [0] * model.cfg.n_layers
    asked = [0] * model.cfg.n_layers
    for bundle in plan.sweep.bundles:
        tokens = bundle.tokens(len(plan.sweep.base[bundle.text].tokens))
        for layer in range(bundle.first_layer, model.cfg.n_layers):
            heights[layer] += tokens
            asked[layer] += tokens if layer < model.cfg.n_layers - 1 else len(bundle.cells)
    passes = sum(len(text.tokens) for text in (*plan.sweep.base, *plan.sweep.source))

    def products(all_tokens: list[int], going_on: list[int]) -> None:
        for layer, (keys, queries) in enumerate(zip(all_tokens, going_on, strict=True)):
            attn, mlp = model.blocks[layer].attn, model.blocks[layer].mlp
            for linear, height in (
                (attn.q, queries),
                (attn.k, keys),
                (attn.v, keys),
                (attn.o, queries),
                (mlp.gate, queries),
                (mlp.up, queries),
                (mlp.down, queries),
            ):
                if height:
                    torch.nn.functional.linear(inputs[linear.in_features][:height], linear.weight)

    tallest = max(*heights, passes)
    inputs = {width: torch.randn(tallest, width) for width in (model.cfg.d_model, model.cfg.d_mlp)}

    def run() -> None:
        products(heights, asked)
        half = [passes // 2] * model.cfg.n_layers
        products(half, half)
        products(half, half)

    return _timed(run, n)[0]


def _growth(model: interp.HookedTransformer) -> None:
    """Seconds and peak memory over tokens and pairs, on three layers, within a limit."""
    limit = 256 << 20
    print(f"\ngrowth: resid_pre at layers 5, 15, 25, every position; max_bytes {limit / 1e6:.0f} MB")
    words = "Then the people of the old town walked slowly over the bridge while it rained on their houses. " * 20
    ids = model.to_tokens(words)[0].tolist()
    converted.wait_for_writes()  # neither the cache's writer nor reading memory-mapped weights in is the sweep's memory
    model(words[:200])
    for n_tokens, n_pairs in ((14, 1), (56, 1), (224, 1), (14, 8), (14, 32), (56, 8)):
        clean = [[1000 + i, *ids[1:n_tokens]] for i in range(n_pairs)]
        corrupt = [[2000 + i, *ids[1:n_tokens]] for i in range(n_pairs)]
        pairs = interp.PromptPairs.from_tokens(clean, corrupt, answer=[5] * n_pairs, foil=[6] * n_pairs, model=model)
        plan = interp.patch.plan(model, pairs, "resid_pre", at={"layer": [5, 15, 25]}, max_bytes=limit)
        began = time.perf_counter()
        peak, _ = _peak_bytes(plan.run)
        seconds, cost = time.perf_counter() - began, plan.cost
        print(
            f"  {n_tokens:4d} tokens, {n_pairs:3d} pairs: {cost.cells:6,} cells, {cost.token_layers:10,} token-layers, "
            f"{seconds:6.2f} s (planned {cost.seconds:.2f}), {cost.token_layers / seconds:9,.0f} token-layers/s"
        )
        check("    peak memory above the weights", peak / 1e6, limit / 1e6, unit=" MB")


def _peak_bytes(run: Callable[[], Any]) -> tuple[int, Any]:
    """The most resident memory above what there was before."""
    import gc

    import psutil

    gc.collect()
    process = psutil.Process(os.getpid())
    before, most, done = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], process.memory_info().rss - before)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = run()
    finally:
        done.set()
        watcher.join()
    return most[0], result


if __name__ == "__main__":
    main()
