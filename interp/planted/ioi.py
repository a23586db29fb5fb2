"""duplicate token → S-inhibition → name mover: indirect objects (after Wang 2022, §3)."""

from __future__ import annotations

import torch

from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.indirect_objects import attends_to_io, name_pairs, name_wiring
from interp.planted.prompts import questions, sets
from interp.planted.wiring import Move

__all__ = ["CIRCUITS"]

ABOUT = """\
"… A … B … B … END" wants A. The duplicate-token head 0.1 flags the second B. The S-inhibition head 1.2 attends from
END to the flag and brings B's name to END. The name mover 2.1 attends from END to names, but a name that was brought
to END loses more score than names have: it attends to A, and copies it. 0.0, 1.0 and 2.0 attend as these three and
write where nothing reads. With S2 → IO (`swap`) the duplicate is still flagged at the same place, so 0.1 has no
effect, and its mean over such prompts is what it always writes; with a third name it has one, in noising only: a flag
is necessary, but not sufficient to bring a name that is not there. With three other names (`abc`) only the mover is
sufficient."""


def _draw(n: int, generator: torch.Generator) -> Diagram:
    wiring = name_wiring(3)
    wiring.head("2.1", attends_to_io(), [Move("tok", "out")])
    wiring.head("2.0", attends_to_io(), [Move("tok", "junk")])
    late, all_three = "1.2 2.1", "0.1 1.2 2.1"
    truth = Truth(
        heads={"duplicate_token": heads("0.1"), "s_inhibition": heads("1.2"), "name_mover": heads("2.1")},
        decoys={"duplicate_token": heads("0.0"), "s_inhibition": heads("1.0"), "name_mover": heads("2.0")},
        effects={
            **questions("swap", denoise=late, noise=late, zero=all_three, mean=late, resample=late),
            **questions(
                "third_name", denoise=late, noise=all_three, zero=all_three, mean=all_three, resample=all_three
            ),
            **questions("abc", denoise="2.1", noise=all_three, zero=all_three, mean=all_three, resample=all_three),
        },
        paths={
            ("swap", "noise"): sets({"1.2.k": "", "2.1.q": "1.2", "2.1.k": "", "2.1.v": "", "logits": "2.1"}),
            ("third_name", "noise"): sets({"1.2.k": "0.1", "1.2.v": "", "2.1.q": "1.2", "logits": "2.1"}),
            ("abc", "noise"): sets({"1.2.k": "0.1", "2.1.q": "1.2", "logits": "2.1"}),
        },
    )
    return Diagram(wiring, name_pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("ioi", _draw, epsilon=0.001),)
