"""A name mover, and a head that takes over where it is missing."""

from __future__ import annotations

import torch

from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.indirect_objects import NAME_SHARP, attends_to_io, name_pairs, name_wiring
from interp.planted.prompts import questions, sets
from interp.planted.wiring import Match, Move

__all__ = ["CIRCUITS"]

ABOUT = """\
The circuit for indirect objects (0.1 flags the name said twice, 1.2 brings it to END) with a backup. The name mover
2.1 also writes `done`. The backup 3.1 has the mover's query, less what `done` takes away: as long as the mover has
written, it rests on BOS and writes nothing. Zero ablation of 2.1 alone therefore changes nothing (the backup writes
the same name), nor does that of 3.1; both together do. The mover is found by its direct path to the logits, and by
patching, which brings another name along with `done`. 3.0 attends as the backup and writes where nothing reads; 2.0
attends as the mover."""


def _draw(n: int, generator: torch.Generator) -> Diagram:
    wiring = name_wiring(4)
    unless_done = [*attends_to_io(), Match("done", "name", -NAME_SHARP)]
    wiring.head("2.1", attends_to_io(), [Move("tok", "out"), Move("name", "done")])
    wiring.head("2.0", attends_to_io(), [Move("tok", "junk")])
    wiring.head("3.1", unless_done, [Move("tok", "out")])
    wiring.head("3.0", unless_done, [Move("tok", "junk")])
    late, early, all_three = "1.2 2.1", "0.1 1.2", "0.1 1.2 2.1"
    truth = Truth(
        heads={
            "duplicate_token": heads("0.1"),
            "s_inhibition": heads("1.2"),
            "name_mover": heads("2.1"),
            "backup": heads("3.1"),
        },
        decoys={"name_mover": heads("2.0"), "backup": heads("3.0")},
        effects={
            **questions("swap", denoise=late, noise=late, zero=early, mean=late, resample=late),
            **questions("third_name", denoise=late, noise=all_three, zero=early, mean=all_three, resample=all_three),
            **questions("abc", denoise="2.1", noise=all_three, zero=early, mean=all_three, resample=all_three),
        },
        joint={heads("2.1 3.1"): frozenset({("swap", "zero"), ("third_name", "zero"), ("abc", "zero")})},
        paths={("swap", "noise"): sets({"2.1.q": "1.2", "3.1.q": "", "logits": "2.1"})},
    )
    return Diagram(wiring, name_pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("backup", _draw, epsilon=0.001),)
