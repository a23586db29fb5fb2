"""Composition scores of all pairs of heads against TransformerLens' `all_composition_scores`: the same raw weights in
one process, each kind timed in turn, and every value compared."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common import check, gguf_path, interleaved, reference_model, start

import interp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of ours (the peer runs once a kind)")
    parser.add_argument("--kinds", default="QKV", help="which compositions")
    given = parser.parse_args()
    start("composition scores, 270 × 270 heads, W_Q W_Kᵀ whole, weights as they are")
    model = interp.load("smollm2-135m")
    bridge = _bridge()
    ratios = []
    for kind in given.kinds:
        ours = interleaved({kind: lambda kind=kind: interp.composition(model, kind, qk="whole")}, given.runs)[kind]
        print(f"{kind}: ours {ours:.2f} s", flush=True)
        began = time.perf_counter()
        theirs = bridge.all_composition_scores(kind)
        seconds = time.perf_counter() - began
        mine = torch.tensor(interp.composition(model, kind, qk="whole").values.values)
        both = ~mine.isnan()
        difference = float((mine - theirs.scores.double())[both].abs().max())
        relative = float(((mine - theirs.scores.double())[both] / mine[both]).abs().max())
        pairs = int(both.sum())
        print(f"   TransformerLens {seconds:.2f} s; {pairs} pairs, largest difference "
              f"{difference:.2g}, relative {relative:.2g}", flush=True)  # fmt: skip
        assert difference <= 1e-5, "the two do not agree"
        ratios.append(seconds / ours)
        check("  times as fast", seconds / ours, 15.0, at_least=True)
    print(f"smallest ratio {min(ratios):.1f}×")


def _bridge() -> Any:
    """TransformerLens' model of the same file, nothing processed."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf_path().parent, gguf_file=gguf_path().name)
    bridge = TransformerBridge.boot_transformers("smollm2", hf_model=reference_model(), tokenizer=tokenizer)
    if hasattr(bridge, "enable_compatibility_mode"):
        bridge.enable_compatibility_mode(no_processing=True)
    return bridge


if __name__ == "__main__":
    main()
