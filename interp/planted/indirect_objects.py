"""What the circuits for indirect objects share: tokens, prompts, and the way to the name mover's query.

A prompt reads `BOS f A f B f … S … END`: two names, then one of them again (S1, S2); the answer is the other (IO).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.pairs import PromptPairs
from interp.planted.prompts import choose
from interp.planted.wiring import Match, Move, Wiring

__all__ = ["CORRUPTIONS", "NAME_SHARP", "attends_to_io", "name_pairs", "name_wiring"]

# Gentler than elsewhere: names that score alike share the attention, and noise must not make one of them win.
NAME_SHARP = 15.0
BOS, END, N_FILLERS, N_NAMES, N_CTX = 0, 1, 12, 40, 16
FILLERS = range(2, 2 + N_FILLERS)
NAMES = range(2 + N_FILLERS, 2 + N_FILLERS + N_NAMES)
VOCAB = NAMES.stop
CORRUPTIONS = ("swap", "third_name", "abc")
# Places of the two names, of the name said again, and the length: two templates, so that position alone tells nothing.
FRAMES = ((1, 3, 6, 8), (2, 5, 7, 10))


def name_wiring(n_layers: int) -> Wiring:
    """The first two layers. 0.1 flags a name that was said before (`dup`); 1.2 takes it to END (`inhibit`). Twins 0.0
    and 1.0 attend alike and write nowhere. Every head rests on BOS, whose score is half that of a match."""
    widths = {"tok": VOCAB, "pos": N_CTX, "one": 1, "bos": 1, "end": 1, "name": 1, "dup": 1, "done": 1}
    widths |= {"inhibit": VOCAB, "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers)
    wiring.embed("tok", silent=BOS)
    wiring.place("pos")
    wiring.flag("one", range(VOCAB))
    wiring.flag("bos", [BOS])
    wiring.flag("end", [END])
    wiring.flag("name", NAMES)
    wiring.unembed("out")
    rest = Match("one", "bos", NAME_SHARP / 2)
    earlier_copy = [Match("tok", "tok", NAME_SHARP), Match("pos", "pos", -NAME_SHARP), rest]  # not the token itself
    said_twice = [Match("end", "dup", NAME_SHARP), rest]
    wiring.head("0.1", earlier_copy, [Move("name", "dup")])
    wiring.head("0.0", earlier_copy, [Move("name", "junk", table=torch.ones(1, VOCAB) / VOCAB**0.5)])
    wiring.head("1.2", said_twice, [Move("tok", "inhibit")])
    wiring.head("1.0", said_twice, [Move("tok", "junk")])
    return wiring


def attends_to_io() -> list[Match]:
    """From END to the names, but not to the inhibited one."""
    return [
        Match("end", "name", NAME_SHARP),
        Match("inhibit", "tok", -1.5 * NAME_SHARP),
        Match("one", "bos", NAME_SHARP / 2),
    ]


def name_pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    """`n` name pairs, templates and both orders of the names in turn; each in three corruptions: S2 becomes the other
    name, a third one, or all three names are others."""
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", *CORRUPTIONS)}
    answers, foils, templates, items = [], [], [], []
    positions: dict[str, list[int]] = {"IO": [], "S1": [], "S2": [], "END": []}
    for i in range(n):
        frame, order = i % len(FRAMES), i // len(FRAMES) % 2
        first, second, third, *others = choose(NAMES, 6, generator)
        io, s = (first, second) if order == 0 else (second, first)
        filled = {"clean": (first, second, s), "swap": (first, second, io)}
        filled |= {"third_name": (first, second, third), "abc": tuple(others)}
        for name, names in filled.items():
            rows[name].append(_row(FRAMES[frame], names, frame))
        answers.append(io)
        foils.append(s)
        templates.append(f"frame {frame}")
        items.append(f"{io}/{s}")
        a, b, again, end = FRAMES[frame]
        for name, at in zip(positions, (a, b, again, end) if order == 0 else (b, a, again, end), strict=True):
            positions[name].append(at)
    about = {"positions": positions, "items": items, "templates": templates}
    return {name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foils, **about) for name in CORRUPTIONS}


def _row(frame: tuple[int, ...], names: Sequence[int], number: int) -> list[int]:
    *places, end = frame
    row = [BOS, *(FILLERS[(number * 5 + i) % N_FILLERS] for i in range(end - 1)), END]
    for place, name in zip(places, names, strict=True):
        row[place] = name
    return row
