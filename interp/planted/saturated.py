"""A head whose softmax is saturated: its attention moves at once or not at all, so its gradient is 0."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import choose, questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS"]

BOS, END, MARK, PLAIN, N_CTX = 0, 1, 2, 3, 12
FILLERS, WORDS = range(4, 10), range(10, 60)
VOCAB = WORDS.stop
FRAMES = ((1, 4, 7), (2, 6, 9))  # places before the two words, and the last one
ABOUT = """\
"BOS ! X . Y END" wants X, the word behind the mark; "BOS . X ! Y END" wants Y. The previous-token head 0.1 flags the
word behind a mark; the reader 1.1 attends from END to the flag and copies the word. Its scores are so far apart that
its attention does not move at all until a flag is at least half set: exact patching of 0.1 has the full effect, its
gradient is 0 to rounding, and attribution patching misses it. The reader's own output is linear in the logits, so
attribution finds that. 0.0 attends as 0.1 and 1.0 as 1.1; both write where nothing reads."""


def _wiring() -> Wiring:
    widths = {"tok": VOCAB, "pos": N_CTX, "one": 1, "bos": 1, "end": 1, "mark": 1, "flag": 1}
    wiring = Wiring({**widths, "out": VOCAB, "junk": VOCAB}, VOCAB, N_CTX, n_layers=2)
    wiring.embed("tok", silent=BOS)
    wiring.place("pos")
    for flag, tokens in (("one", range(VOCAB)), ("bos", [BOS]), ("end", [END]), ("mark", [MARK])):
        wiring.flag(flag, tokens)
    wiring.unembed("out")
    before = torch.diag(torch.ones(N_CTX - 1, dtype=torch.float64), -1)
    previous = [Match("pos", "pos", table=before)]
    flagged = [Match("end", "flag", 2 * SHARP), Match("one", "bos", 1.2 * SHARP)]
    wiring.head("0.1", previous, [Move("mark", "flag")])
    wiring.head("0.0", previous, [Move("tok", "junk")])
    wiring.head("1.1", flagged, [Move("tok", "out")])
    wiring.head("1.0", flagged, [Move("tok", "junk")])
    return wiring


def _draw(n: int, generator: torch.Generator) -> Diagram:
    clean, corrupt, answers, foils, frames = [], [], [], [], []
    places: dict[str, list[int]] = {"answer": [], "foil": [], "END": []}
    for i in range(n):
        frame, order = i % 2, i // 2 % 2
        first, second, end = FRAMES[frame]
        words = choose(WORDS, 2, generator)
        row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
        row[first + 1], row[second + 1] = words
        marked = [list(row), list(row)]
        for which, one in enumerate(marked):
            one[first], one[second] = (MARK, PLAIN) if which == 0 else (PLAIN, MARK)
        clean.append(marked[order])
        corrupt.append(marked[1 - order])
        answers.append(words[order])
        foils.append(words[1 - order])
        frames.append(f"frame {frame}")
        for name, at in zip(places, ((first, second)[order] + 1, (second, first)[order] + 1, end), strict=True):
            places[name].append(at)
    about = {"positions": places, "templates": frames}
    pairs = PromptPairs.from_tokens(clean, corrupt, answers, foils, **about)
    both = "0.1 1.1"
    truth = Truth(
        heads={"previous_token": heads("0.1"), "reader": heads("1.1")},
        decoys={"previous_token": heads("0.0"), "reader": heads("1.0")},
        effects=questions("mark", denoise=both, noise=both, zero=both, mean=both, resample=both),
        paths={("mark", "noise"): sets({"1.1.k": "0.1", "1.1.v": "", "1.1.q": "", "logits": "1.1"})},
        flat=heads("0.1"),
    )
    return Diagram(_wiring(), {"mark": pairs}, truth, ABOUT)


CIRCUITS = (Circuit("saturated", _draw, epsilon=0.02),)
