"""A head whose two paths cancel: no effect of its own, and one along each path."""

from __future__ import annotations

import torch

from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.one_source import VOCAB, source_pairs, source_wiring, to_source
from interp.planted.prompts import questions, sets
from interp.planted.wiring import SHARP, Match, Move

__all__ = ["CIRCUITS"]

ABOUT = """\
Head 0.2 copies the source into the output: it does the work. Head 0.1 copies it into `mid`, from where 1.1 adds it to
the output and 1.2 takes the same away. Whatever is done to 0.1, both of its paths change by opposite amounts and
nothing happens: patching and ablation give it 0. Path patching finds both paths, of equal size and opposite sign. 0.0
attends as 0.1 and 1.0 as 1.1; both write where nothing reads, and no path of theirs has an effect either."""


def _draw(n: int, generator: torch.Generator) -> Diagram:
    wiring = source_wiring(2, {"mid": VOCAB})
    stay = [Match("end", "end"), Match("one", "bos", SHARP / 2)]
    wiring.head("0.1", to_source(), [Move("tok", "mid")])
    wiring.head("0.2", to_source(), [Move("tok", "out")])
    wiring.head("0.0", to_source(), [Move("tok", "junk")])
    wiring.head("1.1", stay, [Move("mid", "out")])
    wiring.head("1.2", stay, [Move("mid", "out", -1.0)])
    wiring.head("1.0", stay, [Move("mid", "junk")])
    seen = "0.2 1.1 1.2"
    every = {how: seen for how in ("denoise", "noise", "zero", "mean", "resample")}
    found = sets({"1.1.v": "0.1", "1.2.v": "0.1", "1.1.q": "", "1.1.k": "", "logits": seen})
    truth = Truth(
        heads={"cancelling": heads("0.1"), "mover": heads("0.2"), "adds": heads("1.1"), "takes_away": heads("1.2")},
        decoys={"cancelling": heads("0.0"), "adds": heads("1.0")},
        effects={**questions("absent", **every), **questions("swap", **every)},
        paths={(one, how): found for one in ("absent", "swap") for how in ("noise", "denoise")},
        raises=heads("1.2"),
    )
    return Diagram(wiring, source_pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("cancelling", _draw, epsilon=0.01),)
