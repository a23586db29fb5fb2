"""A name mover and a head that undoes part of what it does."""

from __future__ import annotations

import torch

from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.indirect_objects import attends_to_io, name_pairs, name_wiring
from interp.planted.prompts import questions, sets
from interp.planted.wiring import Move

__all__ = ["CIRCUITS"]

ABOUT = """\
The circuit for indirect objects (0.1 flags the name said twice, 1.2 brings it to END), with a second head behind the
name mover's query: 2.3 attends exactly as the mover 2.1 but writes −0.4 of the name it attends to. Ablating it raises
the logit difference; copying it from the corrupt run moves the logit difference *away* from the corrupt run (a share
of −0.67). 2.0 attends like both and writes where nothing reads: attention tells none of the three apart."""


def _draw(n: int, generator: torch.Generator) -> Diagram:
    wiring = name_wiring(3)
    wiring.head("2.1", attends_to_io(), [Move("tok", "out")])
    wiring.head("2.3", attends_to_io(), [Move("tok", "out", -0.4)])
    wiring.head("2.0", attends_to_io(), [Move("tok", "junk")])
    last, late, whole = "2.1 2.3", "1.2 2.1 2.3", "0.1 1.2 2.1 2.3"
    truth = Truth(
        heads={
            "duplicate_token": heads("0.1"),
            "s_inhibition": heads("1.2"),
            "name_mover": heads("2.1"),
            "negative_mover": heads("2.3"),
        },
        decoys={"name_mover": heads("2.0"), "negative_mover": heads("2.0")},
        effects={
            **questions("swap", denoise=late, noise=late, zero=whole, mean=late, resample=late),
            **questions("third_name", denoise=late, noise=whole, zero=whole, mean=whole, resample=whole),
            **questions("abc", denoise=last, noise=whole, zero=whole, mean=whole, resample=whole),
        },
        paths={("swap", "noise"): sets({"2.1.q": "1.2", "2.3.q": "1.2", "logits": last})},
        raises=heads("2.3"),
    )
    return Diagram(wiring, name_pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("negative", _draw, epsilon=0.001),)
