"""OR and AND: two heads of which either is enough, and two that are both needed."""

from __future__ import annotations

import torch

from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.one_source import VOCAB, clip, source_pairs, source_wiring, to_source
from interp.planted.prompts import questions, sets
from interp.planted.wiring import Move, Wiring

__all__ = ["CIRCUITS"]

OR = """\
Heads 0.1 and 0.2 both copy the source into `found`, 1.5 each; the MLP writes the output where `found` is above 1, and
as much for 3 as for 1.5. Either head is enough. With the source absent from the corrupt prompts, denoising finds both
heads, noising and ablation find neither, and both together are found by all. 0.0 attends as both and writes where
nothing reads. With another source in its place (`swap`) the redundancy does not show in noising: a single head that
says the foil is enough for that too."""
AND = """\
Heads 0.1 and 0.2 both copy the source into `found`, 1 each; the MLP writes the output where `found` is above 1.75,
and nothing below 1.25. Both heads are needed. With the source absent from the corrupt prompts, noising and ablation
find both, denoising finds neither, and both together are found by all. 0.0 attends as both and writes where nothing
reads. With another source in its place (`swap`) denoising finds each: a missing head is enough to silence the foil."""
PAIR = heads("0.1 0.2")


def _wiring(gain: float, low: float) -> Wiring:
    wiring = source_wiring(1, {"found": VOCAB})
    wiring.head("0.1", to_source(), [Move("tok", "found", gain)])
    wiring.head("0.2", to_source(), [Move("tok", "found", gain)])
    wiring.head("0.0", to_source(), [Move("tok", "junk", gain)])
    clip(wiring, 0, "found", low)
    return wiring


def _either(n: int, generator: torch.Generator) -> Diagram:
    mlp, both = "mlp_out.0", "0.1 0.2 mlp_out.0"
    ablated = {"zero": mlp, "mean": mlp, "resample": mlp}
    hidden = [("absent", "zero"), ("absent", "mean"), ("absent", "resample"), ("swap", "zero"), ("swap", "mean")]
    truth = Truth(
        heads={"or": PAIR},
        decoys={"or": heads("0.0")},
        effects={
            **questions("absent", denoise=both, noise=mlp, **ablated),
            # Not resampled: chance may draw a prompt's own foil, and then a head by itself has an effect.
            **questions("swap", denoise=both, noise=both, zero=mlp, mean=mlp),
        },
        joint={PAIR: frozenset([*hidden, ("absent", "noise")])},
        paths={
            ("absent", "denoise"): sets({"mlp_pre.0": "0.1 0.2", "logits": both}),
            ("absent", "noise"): sets({"mlp_pre.0": "", "logits": mlp}),
        },
    )
    return Diagram(_wiring(1.5, 0.5), source_pairs(n, generator), truth, OR)


def _both(n: int, generator: torch.Generator) -> Diagram:
    mlp, both = "mlp_out.0", "0.1 0.2 mlp_out.0"
    ablated = {"zero": both, "mean": both, "resample": both}
    truth = Truth(
        heads={"and": PAIR},
        decoys={"and": heads("0.0")},
        effects={
            **questions("absent", denoise=mlp, noise=both, **ablated),
            **questions("swap", denoise=both, noise=both, **ablated),
        },
        joint={PAIR: frozenset([("absent", "denoise")])},
        paths={
            ("absent", "noise"): sets({"mlp_pre.0": "0.1 0.2", "logits": both}),
            ("absent", "denoise"): sets({"mlp_pre.0": "", "logits": mlp}),
        },
    )
    return Diagram(_wiring(1.0, 1.25), source_pairs(n, generator), truth, AND)


CIRCUITS = (Circuit("or", _either, epsilon=0.01), Circuit("and", _both, epsilon=0.01))
