"""What the gates and the cancelling paths share: prompts `BOS f … source … END` that want the source again."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from interp.pairs import PromptPairs
from interp.planted.prompts import choose
from interp.planted.wiring import SHARP, Match, Neurons, Wiring, identity

__all__ = ["CLIP_WIDTH", "clip", "source_pairs", "source_wiring", "to_source"]

BOS, END, BLANK, N_CTX, N_EACH = 0, 1, 2, 8, 40
FILLERS = range(3, 9)
SOURCES, OTHERS = range(9, 9 + N_EACH), range(9 + N_EACH, 9 + 2 * N_EACH)  # clean ones, and those of corrupt prompts
VOCAB = OTHERS.stop
FRAMES = ((2, 4), (3, 6))  # places of the source and the last one
CLIP_WIDTH = 0.5


def source_wiring(n_layers: int, extra: Mapping[str, int] | None = None) -> Wiring:
    """Tokens and outputs; no heads yet. A blank at the source's place is attended to like one, but says nothing."""
    widths = {"tok": VOCAB, "one": 1, "bos": 1, "end": 1, "source": 1, **(extra or {}), "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers)
    wiring.embed("tok", silent=BLANK)
    for flag, tokens in (("one", range(VOCAB)), ("bos", [BOS]), ("end", [END]), ("source", [BLANK, *SOURCES, *OTHERS])):
        wiring.flag(flag, tokens)
    wiring.unembed("out")
    return wiring


def to_source() -> list[Match]:
    """From END to the source; all other queries rest on BOS."""
    return [Match("end", "source"), Match("one", "bos", SHARP / 2)]


def source_pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    """Corruption `absent` puts a blank for the source, `swap` another source. Sources of corrupt prompts are never
    answers, so that what another prompt says is neither answer nor foil."""
    sources, others = choose(SOURCES, N_EACH, generator), choose(OTHERS, N_EACH, generator)
    rows: dict[str, list[list[int]]] = {"clean": [], "absent": [], "swap": []}
    answers, foils, frames = [], [], []
    places: dict[str, list[int]] = {"source": [], "END": []}
    for i in range(n):
        frame, answer, foil = i % 2, sources[i % N_EACH], others[(i + i // N_EACH) % N_EACH]
        at, end = FRAMES[frame]
        for name, token in (("clean", answer), ("absent", BLANK), ("swap", foil)):
            row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
            row[at] = token
            rows[name].append(row)
        answers.append(answer)
        foils.append(foil)
        frames.append(f"frame {frame}")
        places["source"].append(at)
        places["END"].append(end)
    about = {"positions": places, "items": [f"source {one}" for one in answers], "templates": frames}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foils, **about) for name in ("absent", "swap")
    }


def clip(wiring: Wiring, layer: int, read: str, low: float) -> None:
    """Two neurons a token: 0 below `low`, 1 from `low + 0.5` on, a slope between."""
    one, slope = identity(wiring.spaces[read]), 1 / CLIP_WIDTH
    wiring.layer(
        layer,
        Neurons(read, "out", into=one, out=slope * one, bias=-low),
        Neurons(read, "out", into=one, out=-slope * one, bias=-low - CLIP_WIDTH),
    )
