"""A head that lowers what is about to be predicted where it has been said already (after McDougall 2023)."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import choose, questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS"]

BOS, N_WORDS, LENGTH, N_CTX = 0, 60, 9, 64
WORDS = range(1, 1 + N_WORDS)
VOCAB = WORDS.stop
ABOUT = """\
Every word has one that follows it. Head 0.1 attends to the token itself and writes its follower into the output: that
is the prediction. Head 1.1 looks for the *predicted* word among the earlier tokens; where it stands, 1.1 attends to
it and writes −0.6 of it. Clean prompts hold the word that will be predicted, prompts corrupted by `absent` hold
another in its place, so their logit difference is higher. Corruption `last` changes the last word and with it the
prediction. 1.0 attends as 1.1, 0.0 as 0.1; both write where nothing reads."""


def _wiring(follower: torch.Tensor) -> Wiring:
    widths = {"tok": VOCAB, "pos": N_CTX, "one": 1, "bos": 1, "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2)
    wiring.embed("tok", silent=BOS)
    wiring.place("pos")
    wiring.flag("one", range(VOCAB))
    wiring.flag("bos", [BOS])
    wiring.unembed("out")
    itself, predicted = [Match("pos", "pos")], [Match("out", "tok"), Match("one", "bos", SHARP / 2)]
    wiring.head("0.1", itself, [Move("tok", "out", table=follower)])
    wiring.head("0.0", itself, [Move("tok", "junk")])
    wiring.head("1.1", predicted, [Move("tok", "out", -0.6)])
    wiring.head("1.0", predicted, [Move("tok", "junk")])
    return wiring


def _draw(n: int, generator: torch.Generator) -> Diagram:
    # Words follow each other in a circle whose order is the model's, not the prompts'.
    circle = choose(WORDS, N_WORDS, torch.Generator().manual_seed(0))
    after = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    follower = torch.zeros(VOCAB, VOCAB, dtype=torch.float64)
    follower[list(after), list(after.values())] = 1.0
    rows: dict[str, list[list[int]]] = {"clean": [], "absent": [], "last": []}
    answers, foils, places = [], [], []
    for i in range(n):
        last = circle[i % N_WORDS]
        free = [word for word in choose(WORDS, N_WORDS, generator) if word not in (last, after[last])]
        other, foil = free[0], after[free[0]]
        context = [word for word in free[1:] if word not in (foil, after[last])][: LENGTH - 2]
        at = 2 + i % 4
        clean = [BOS, *context, last]
        clean[at] = after[last]
        rows["clean"].append(clean)
        rows["absent"].append([*clean[:at], other, *clean[at + 1 :]])
        rows["last"].append([*clean[:-1], other])
        answers.append(after[last])
        foils.append(foil)
        places.append(at)
    about = {
        "positions": {"said": places, "END": LENGTH - 1},
        "items": [f"word {one}" for one in answers],
        "templates": ["plain"] * n,
    }
    pairs = {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foils, **about) for name in ("absent", "last")
    }
    both = "0.1 1.1"
    ablated = {"zero": both, "mean": both, "resample": both}
    truth = Truth(
        heads={"predictor": heads("0.1"), "copy_suppression": heads("1.1")},
        decoys={"predictor": heads("0.0"), "copy_suppression": heads("1.0")},
        effects={
            **questions("absent", denoise="1.1", noise="1.1", **ablated),
            **questions("last", denoise="0.1 1.1", noise="0.1 1.1", **ablated),
        },
        paths={
            ("absent", "noise"): sets({"1.1.q": "", "1.1.k": "", "logits": "1.1"}),
            ("last", "noise"): sets({"1.1.q": "0.1", "1.1.v": "", "logits": "0.1 1.1"}),
        },
        raises=heads("1.1"),
    )
    rows_of_words = torch.tensor([[BOS, *choose(WORDS, 40, generator)] for _ in range(n)])
    return Diagram(_wiring(follower), pairs, truth, ABOUT, rows_of_words)


CIRCUITS = (Circuit("copy_suppression", _draw, epsilon=0.01),)
