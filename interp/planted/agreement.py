"""A verb finds its subject and takes its number; a second head takes the number of the noun that stands between."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import choose, questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS"]

BOS, END, N_EACH, N_CTX = 0, 1, 32, 12
FILLERS = range(2, 8)
NUMBERS = range(8, 10)  # as it were: this, these
VERBS = range(10, 12)  # is, are
SUBJECTS = range(12, 12 + N_EACH)
OTHERS = range(SUBJECTS.stop, SUBJECTS.stop + N_EACH)
VOCAB = OTHERS.stop
FRAMES = (
    (1, 4, 8),
    (2, 6, 10),
)  # places of what says the subject's number (the noun follows), the attractor's, the end
ATTRACTION = 0.5
ABOUT = """\
"… these sheep … this barn … END" wants "are". Nouns do not show their number: the word before them does. Head 0.1 takes
it from there to the noun. The agreement head 1.1 attends from END to the subject and writes the form of that number.
Head 1.2 attends to the other noun, the attractor, and writes half as much of its number: it makes the answer surer
where the two agree and less sure where they do not, and agreement heads have to be told from it. 0.0 attends as 0.1 and
1.0 as 1.1; both write where nothing reads. In the clean prompts both nouns have one number. Corruption `subject` swaps
that of the subject, which 0.1 and 1.1 carry; `attractor` that of the attractor, which 0.1 and 1.2 carry."""


def _wiring() -> Wiring:
    widths = {"one": 1, "bos": 1, "end": 1, "subject": 1, "other": 1, "pos": N_CTX}
    widths |= {"said": 2, "number": 2, "form": 2, "junk": 2}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2)
    flags = {"one": range(VOCAB), "bos": [BOS], "end": [END], "subject": SUBJECTS, "other": OTHERS}
    for flag, tokens in flags.items():
        wiring.flag(flag, tokens)
    wiring.place("pos")
    said = torch.zeros(VOCAB, 2)
    said[list(NUMBERS), [0, 1]] = 1.0
    wiring.embed("said", said)
    forms = torch.zeros(2, VOCAB)
    forms[[0, 1], list(VERBS)] = 1.0
    wiring.unembed("form", forms)
    before = torch.diag(torch.ones(N_CTX - 1, dtype=torch.float64), -1)  # the query at j matches the key at j − 1
    previous, rest = [Match("pos", "pos", table=before)], Match("one", "bos", SHARP / 2)
    to_subject, to_other = ([Match("end", name), rest] for name in ("subject", "other"))
    wiring.head("0.1", previous, [Move("said", "number")])
    wiring.head("0.0", previous, [Move("said", "junk")])
    wiring.head("1.1", to_subject, [Move("number", "form")])
    wiring.head("1.0", to_subject, [Move("number", "junk")])
    wiring.head("1.2", to_other, [Move("number", "form", ATTRACTION)])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    subjects, others = choose(SUBJECTS, N_EACH, generator), choose(OTHERS, N_EACH, generator)
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "subject", "attractor")}
    places: dict[str, list[list[int]]] = {one: [] for one in ("subject", "attractor", "END")}
    answers, foils, items, frames = [], [], [], []
    for i in range(n):
        number, frame = i % 2, i // 2 % 2
        first, second, end = FRAMES[frame]
        noun, other = subjects[i % N_EACH], others[(i + i // N_EACH) % N_EACH]
        for name, numbers in {"clean": (0, 0), "subject": (1, 0), "attractor": (0, 1)}.items():
            row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
            row[first], row[first + 1] = NUMBERS[number ^ numbers[0]], noun
            row[second], row[second + 1] = NUMBERS[number ^ numbers[1]], other
            rows[name].append(row)
        answers.append(VERBS[number])
        foils.append(VERBS[1 - number])
        for name, where in (("subject", [first, first + 1]), ("attractor", [second, second + 1]), ("END", [end])):
            places[name].append(where)
        items.append(f"subject {noun}")
        frames.append(f"frame {frame}")
    about = {"positions": places, "items": items, "templates": frames}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foils, **about)
        for name in ("subject", "attractor")
    }


def _draw(n: int, generator: torch.Generator) -> Diagram:
    by_subject, by_attractor, whole = "0.1 1.1", "0.1 1.2", "0.1 1.1 1.2"
    ablated = {"zero": whole, "mean": whole, "resample": whole}
    truth = Truth(
        heads={"agreement": heads("1.1"), "attraction": heads("1.2"), "number_mover": heads("0.1")},
        decoys={"agreement": heads("1.0"), "number_mover": heads("0.0")},
        effects={
            **questions("subject", denoise=by_subject, noise=by_subject, **ablated),
            **questions("attractor", denoise=by_attractor, noise=by_attractor, **ablated),
        },
        paths={
            ("subject", "noise"): sets({"1.1.v": "0.1", "1.1.k": "", "1.1.q": "", "1.2.v": "", "logits": "1.1"}),
            ("attractor", "noise"): sets({"1.2.v": "0.1", "1.2.k": "", "1.2.q": "", "1.1.v": "", "logits": "1.2"}),
        },
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("agreement", _draw, epsilon=0.01),)
