"""A pronoun finds its antecedent by its features; a later head answers with it."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import choose, questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS"]

BOS, END, N_FILLERS, N_EACH, N_CTX = 0, 1, 8, 16, 12
FILLERS = range(2, 2 + N_FILLERS)
PRONOUNS = range(FILLERS.stop, FILLERS.stop + 4)  # as it were: he, she, it, they
VOCAB = PRONOUNS.stop + 4 * N_EACH
CLASSES = [range(PRONOUNS.stop + i * N_EACH, PRONOUNS.stop + (i + 1) * N_EACH) for i in range(4)]
FRAMES = ((1, 3, 6, 8), (2, 5, 8, 10))  # places of the nouns, of the pronoun, and the last one
ABOUT = """\
"… Ann … Bob … he … END" wants Bob. Nouns carry the class of pronoun that fits them (gender for two of the four
classes, number for the others: he, she, it, they). The coreference head 0.1 attends from a pronoun to the noun of its
class and writes its name there; the answering head 1.1 attends from END to the pronoun and copies that name. Four
heads do nothing: 0.0 attends as 0.1, 1.0 as 1.1, 0.2 from the pronoun to the nearest noun, 0.3 to the first. On
prompts whose antecedent always comes last, 0.2 looks perfect; over both orders it is right in half. Corruption
`pronoun` changes the pronoun, `antecedent` the noun it means; `names` only changes the order of the nouns, so that
attention moves and the answer stays: no patch has an effect."""


def _wiring() -> Wiring:
    widths = {"tok": VOCAB, "one": 1, "bos": 1, "end": 1, "noun": 1, "pronoun": 1, "late": 1}
    widths |= {"fits": 4, "asks": 4, "meant": VOCAB, "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2)
    fits, asks = torch.zeros(2, VOCAB, 4)
    for i, members in enumerate(CLASSES):
        fits[list(members), i] = 1.0
        asks[PRONOUNS[i], i] = 1.0
    wiring.embed("tok", silent=BOS)
    wiring.embed("fits", fits)
    wiring.embed("asks", asks)
    for flag, tokens in (("one", range(VOCAB)), ("bos", [BOS]), ("end", [END]), ("pronoun", PRONOUNS)):
        wiring.flag(flag, tokens)
    wiring.flag("noun", range(PRONOUNS.stop, VOCAB))
    wiring.place("late", torch.arange(N_CTX)[:, None] / N_CTX)
    wiring.unembed("out")
    rest = Match("one", "bos", SHARP / 2)
    agreeing, pronoun = [Match("asks", "fits"), rest], [Match("end", "pronoun"), rest]
    any_noun, by_place = Match("pronoun", "noun", 3 * SHARP), 2 * SHARP  # one place apart: 2 × SHARP / N_CTX
    wiring.head("0.1", agreeing, [Move("tok", "meant")])
    wiring.head("0.0", agreeing, [Move("tok", "junk")])
    wiring.head("0.2", [any_noun, Match("pronoun", "late", by_place), rest], [Move("tok", "junk")])
    wiring.head("0.3", [any_noun, Match("pronoun", "late", -by_place), rest], [Move("tok", "junk")])
    wiring.head("1.1", pronoun, [Move("meant", "out")])
    wiring.head("1.0", pronoun, [Move("meant", "junk")])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "pronoun", "names", "antecedent")}
    places: dict[str, list[int]] = {one: [] for one in ("antecedent", "distractor", "pronoun", "END")}
    answers, others, third, frames = [], [], [], []
    for i in range(n):
        frame, order, contrast, turn = (i >> shift & 1 for shift in range(4))
        mine, other = (2 * contrast + turn, 2 * contrast + 1 - turn)
        antecedent, another = choose(CLASSES[mine], 2, generator)
        (distractor,) = choose(CLASSES[other], 1, generator)
        first, second, asked, end = FRAMES[frame]
        here, there = (first, second) if order == 0 else (second, first)
        clean = [BOS, *(FILLERS[(4 * frame + k) % N_FILLERS] for k in range(end - 1)), END]
        clean[here], clean[there], clean[asked] = antecedent, distractor, PRONOUNS[mine]
        rows["clean"].append(clean)
        rows["pronoun"].append(_with(clean, {asked: PRONOUNS[other]}))
        rows["names"].append(_with(clean, {here: distractor, there: antecedent}))
        rows["antecedent"].append(_with(clean, {here: another}))
        answers.append(antecedent)
        others.append(distractor)
        third.append(another)
        frames.append(f"frame {frame}")
        for name, at in zip(places, (here, there, asked, end), strict=True):
            places[name].append(at)
    foils = {"pronoun": others, "names": others, "antecedent": third}
    about = {
        "positions": places,
        "items": [f"{answers[i]}/{others[i]}" for i in range(n)],
        "templates": frames,
    }
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foil, **about) for name, foil in foils.items()
    }


def _with(row: list[int], changes: dict[int, int]) -> list[int]:
    return [changes.get(at, token) for at, token in enumerate(row)]


def _draw(n: int, generator: torch.Generator) -> Diagram:
    both = "0.1 1.1"
    ablated = {"zero": both, "mean": both, "resample": both}
    truth = Truth(
        heads={"coreference": heads("0.1"), "answer_mover": heads("1.1")},
        decoys={
            "coreference": heads("0.0"),
            "answer_mover": heads("1.0"),
            "nearest_noun": heads("0.2"),
            "first_noun": heads("0.3"),
        },
        effects={
            **questions("pronoun", denoise=both, noise=both, **ablated),
            **questions("antecedent", denoise=both, noise=both, **ablated),
            **questions("names", denoise="", noise="", **ablated),
        },
        paths={
            ("pronoun", "noise"): sets({"1.1.v": "0.1", "1.1.k": "", "1.1.q": "", "logits": "1.1"}),
            ("antecedent", "noise"): sets({"1.1.v": "0.1", "1.1.k": "", "logits": "1.1"}),
            ("names", "noise"): sets({"1.1.v": "", "logits": ""}),
        },
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("coreference", _draw, epsilon=0.01),)
