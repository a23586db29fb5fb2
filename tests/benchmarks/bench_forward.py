"""A plain forward pass against the transformers library with fused attention, and the cost of caching every site
against TransformerLens. Logit differences stand beside each figure."""

from __future__ import annotations

import argparse

from common import check, interleaved, reference_model, start

import interp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each (after one warm-up)")
    n = parser.parse_args().runs
    start("forward pass and caching, medians of interleaved runs")
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    ours, plain = interp.load("smollm2-135m"), reference_model()
    bridge = TransformerBridge.boot_transformers("smollm2", hf_model=reference_model(), tokenizer=_tokenizer())
    for n_tokens in (14, 512):
        tokens = torch.randint(1000, 40_000, (1, n_tokens), generator=torch.Generator().manual_seed(0))
        runs = {
            "transformers": lambda tokens=tokens: plain(tokens, use_cache=False).logits,
            "interp": lambda tokens=tokens: ours(tokens),
            "interp, every site": lambda tokens=tokens: ours.run_with_cache(tokens),
            "TransformerLens": lambda tokens=tokens: bridge(tokens),
            "TransformerLens, every site": lambda tokens=tokens: bridge.run_with_cache(tokens),
        }
        seconds = interleaved(runs, n)
        print(f"\n{n_tokens} tokens")
        for name, value in seconds.items():
            print(f"  {name}: {value * 1e3:.1f} ms")
        reference = runs["transformers"]()
        with_cache, cache = ours.run_with_cache(tokens)
        print(f"  largest logit difference to transformers: {(ours(tokens) - reference).abs().max():.2g}")
        print(f"  largest logit difference of the caching run: {(with_cache - reference).abs().max():.2g}")
        theirs, peer = bridge.run_with_cache(tokens)
        print(f"  TransformerLens' own logit difference: {(theirs - reference).abs().max():.2g}")
        same = (cache["pattern", 18] - peer["blocks.18.attn.hook_pattern"]).abs().max()
        print(
            f"  largest difference of the layer 18 patterns: {same:.2g}; sites: {len(cache)} ours, {len(peer)} theirs"
        )
        check("  plain forward / transformers", seconds["interp"] / seconds["transformers"], 1.03)
        check("  every site cached / plain forward", seconds["interp, every site"] / seconds["interp"], 1.12)
        peer_ratio = seconds["TransformerLens, every site"] / seconds["transformers"]
        print(f"  TransformerLens, every site / transformers' plain forward: {peer_ratio:.3g}×", flush=True)


def _tokenizer() -> object:
    from common import gguf_path
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gguf_path().parent, gguf_file=gguf_path().name)


if __name__ == "__main__":
    main()
