"""A verb finds its subject and a noun its determiner, at any distance; a later head answers with the subject."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.heads.syntax_words import LabelledTokens
from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import choose, questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS", "LAYOUTS", "sentences"]

BOS, END, N_CLASSES, N_NOUNS, N_VERBS, N_CTX = 0, 1, 4, 12, 3, 12
FILLERS, ADJECTIVES = range(2, 8), range(8, 14)
DETERMINERS = range(ADJECTIVES.stop, ADJECTIVES.stop + N_CLASSES)
VERBS = range(DETERMINERS.stop, DETERMINERS.stop + N_CLASSES * N_VERBS)
NOUNS = range(VERBS.stop, VERBS.stop + N_CLASSES * N_NOUNS)
VOCAB = NOUNS.stop
LAYOUTS = ("sjSfaAVfE", "aAsjjSVE", "sSajAfVE", "fajAsSfVfE")
# S the subject, A another noun, s and a their determiners, j an adjective, f a filler, V the verb, E the end
ABOUT = """\
"… det noun … det noun … verb … END" wants the verb's subject. Nouns are of four classes; a verb takes a subject of its
class, a determiner goes with a noun of its own. Head 0.1 attends from the verb to the noun of its class and writes its
name there; 1.1 attends from END to the verb and copies that name. Head 0.0 attends from a noun to the determiner of its
class, and writes where nothing reads. The subject stands one, two, four or five words before the verb, with another
noun in front or between, so that no fixed offset finds it more than once in four. Decoys that do nothing: 0.2 looks two
words back, and is right wherever the subject stands there; 0.3 looks at the first noun and 1.0 at the nearest, whoever
asks. Corruption `verb` changes the verb, `subject` the noun that it takes."""


def _class_members(tokens: range, each: int) -> list[range]:
    return [tokens[i * each : (i + 1) * each] for i in range(N_CLASSES)]


def _wiring() -> Wiring:
    widths = {"tok": VOCAB, "pos": N_CTX, "one": 1, "bos": 1, "end": 1, "noun": 1, "verb": 1, "late": 1}
    widths |= {"noun_class": N_CLASSES, "verb_class": N_CLASSES, "det_class": N_CLASSES}
    widths |= {"meant": VOCAB, "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2)
    wiring.embed("tok", silent=BOS)
    for name, tokens, each in (("noun", NOUNS, N_NOUNS), ("verb", VERBS, N_VERBS), ("det", DETERMINERS, 1)):
        table = torch.zeros(VOCAB, N_CLASSES)
        for i, members in enumerate(_class_members(tokens, each)):
            table[list(members), i] = 1.0
        wiring.embed(f"{name}_class", table)
    for flag, tokens in (("one", range(VOCAB)), ("bos", [BOS]), ("end", [END]), ("noun", NOUNS), ("verb", VERBS)):
        wiring.flag(flag, tokens)
    wiring.place("pos")
    wiring.place("late", torch.arange(N_CTX)[:, None] / N_CTX)
    wiring.unembed("out")
    rest = Match("one", "bos", SHARP / 2)
    two_back = torch.diag(torch.ones(N_CTX - 2, dtype=torch.float64), -2)  # the query at j matches the key at j − 2
    any_noun, by_place = Match("one", "noun", 3 * SHARP), 2 * SHARP  # one place apart: 2 × SHARP / N_CTX
    wiring.head("0.1", [Match("verb_class", "noun_class"), rest], [Move("tok", "meant")])
    wiring.head("0.0", [Match("noun_class", "det_class"), rest], [Move("tok", "junk")])
    wiring.head("0.2", [Match("pos", "pos", table=two_back), rest], [Move("tok", "junk")])
    wiring.head("0.3", [any_noun, Match("one", "late", -by_place), rest], [Move("tok", "junk")])
    wiring.head("1.0", [any_noun, Match("one", "late", by_place), rest], [Move("tok", "junk")])
    wiring.head("1.1", [Match("end", "verb"), rest], [Move("meant", "out")])
    return wiring


def _fill(layout: str, mine: int, other: int, generator: torch.Generator) -> tuple[list[int], dict[str, int]]:
    """A row of a layout, subject of class `mine`, and the places of its words by their letters."""
    nouns, verbs = _class_members(NOUNS, N_NOUNS), _class_members(VERBS, N_VERBS)
    drawn = {
        "S": choose(nouns[mine], 1, generator),
        "A": choose(nouns[other], 1, generator),
        "V": choose(verbs[mine], 1, generator),
        "s": [DETERMINERS[mine]],
        "a": [DETERMINERS[other]],
        "j": choose(ADJECTIVES, 3, generator),
        "f": choose(FILLERS, 3, generator),
        "E": [END],
    }
    row = [BOS, *(drawn[letter].pop() for letter in layout)]
    return row, {letter: 1 + layout.index(letter) for letter in "SAVsaE"}


def sentences(n: int, seed: int = 0, layouts: Sequence[str] = LAYOUTS) -> list[LabelledTokens]:
    """`n` sentences with their trees, the layouts in turn; BOS and END are no words."""
    generator, found = torch.Generator().manual_seed(seed), []
    for i in range(n):
        layout = layouts[i % len(layouts)]
        mine, other = choose(range(N_CLASSES), 2, generator)
        row, at = _fill(layout, mine, other, generator)
        place = {letter: position - 1 for letter, position in at.items()}
        arcs = [("nsubj", place["S"], place["V"]), ("det", place["s"], place["S"]), ("det", place["a"], place["A"])]
        for number, letter in enumerate(layout):
            if letter == "j":
                arcs.append(("amod", number, min(p for p in (place["S"], place["A"]) if p > number)))
        found.append(LabelledTokens(tuple(row), tuple((i + 1,) for i in range(len(layout) - 1)), tuple(arcs)))
    return found


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "verb", "subject")}
    places: dict[str, list[int]] = {one: [] for one in ("subject", "other", "verb", "END")}
    answers, others, third, items = [], [], [], set()
    while len(answers) < n:
        layout = LAYOUTS[len(answers) % len(LAYOUTS)]
        mine, other = choose(range(N_CLASSES), 2, generator)
        clean, at = _fill(layout, mine, other, generator)
        subject, another = clean[at["S"]], clean[at["A"]]
        if (subject, another) in items:
            continue
        items.add((subject, another))
        (verb,) = choose(_class_members(VERBS, N_VERBS)[other], 1, generator)
        left = [token for token in _class_members(NOUNS, N_NOUNS)[mine] if token != subject]
        changed = left[int(torch.randint(len(left), (1,), generator=generator))]
        rows["clean"].append(clean)
        rows["verb"].append([verb if i == at["V"] else token for i, token in enumerate(clean)])
        rows["subject"].append([changed if i == at["S"] else token for i, token in enumerate(clean)])
        answers.append(subject)
        others.append(another)
        third.append(changed)
        for name, letter in zip(places, "SAVE", strict=True):
            places[name].append(at[letter])
    about = {
        "positions": places,
        "items": [f"{answers[i]}/{others[i]}" for i in range(n)],
        "templates": [LAYOUTS[i % len(LAYOUTS)] for i in range(n)],
    }
    foils = {"verb": others, "subject": third}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foil, **about) for name, foil in foils.items()
    }


def _draw(n: int, generator: torch.Generator) -> Diagram:
    both = "0.1 1.1"
    ablated = {"zero": both, "mean": both, "resample": both}
    truth = Truth(
        heads={"syntax": heads("0.0 0.1"), "answer_mover": heads("1.1")},
        decoys={"fixed_offset": heads("0.2"), "first_noun": heads("0.3"), "nearest_noun": heads("1.0")},
        effects={
            **questions("verb", denoise=both, noise=both, **ablated),
            **questions("subject", denoise=both, noise=both, **ablated),
        },
        paths={
            ("verb", "noise"): sets({"1.1.v": "0.1", "1.1.k": "", "1.1.q": "", "logits": "1.1"}),
            ("subject", "noise"): sets({"1.1.v": "0.1", "1.1.k": "", "logits": "1.1"}),
        },
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("syntax", _draw, epsilon=0.01),)
