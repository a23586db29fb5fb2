"""A fact as a sum: some heads say all about the subject, others all that the relation can be (after Chughtai 2024)."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import questions, sets
from interp.planted.wiring import SHARP, Match, Move, Wiring

__all__ = ["CIRCUITS"]

BOS, END, TITLE, N_SUBJECTS, N_CTX = 0, 1, 2, 32, 10
FILLERS, RELATIONS = range(3, 9), range(9, 11)
SUBJECTS = range(11, 11 + N_SUBJECTS)
ATTRIBUTES = [range(SUBJECTS.stop + i * N_SUBJECTS, SUBJECTS.stop + (i + 1) * N_SUBJECTS) for i in range(2)]
VOCAB = ATTRIBUTES[1].stop
FRAMES = ((1, 3, 6), (2, 5, 8))  # places of the relation, of the subject's title (its name follows), and the last one
MIXED = 0.8  # what the mixed head writes of each of the two, before its attention halves it
ABOUT = """\
"BOS … capital … of Mount X … END" wants X's capital. The subject head 0.1 attends from END to the subject's last token
and writes all attributes of X, its capital and its language alike. The relation head 0.2 attends from END to the
relation and writes all capitals, of every subject. The mixed head 1.1 attends to both, half and half, and writes 0.4 of
what each of these two writes. No head by itself knows the answer: it is the only word that both sums hold. 0.0 attends
as 0.1, 0.3 as 0.2 and 1.0 as 1.1; these three write where nothing reads. Changing the subject (`subject`, whose foil is
the other subject's attribute) shows 0.1 and 1.1; changing the relation (`relation`, whose foil is the same subject's
other attribute) shows 0.2 and 1.1. What the third one writes is the same for answer and foil, in either."""


def _wiring() -> Wiring:
    kinds, known = (
        {"relation": 2, "kind": 2, "no_kind": 2},
        {"who": N_SUBJECTS, "name": N_SUBJECTS, "no_name": N_SUBJECTS},
    )
    flags = {"one": range(VOCAB), "bos": [BOS], "end": [END], "subject": SUBJECTS, "asked": RELATIONS}
    wiring = Wiring({**dict.fromkeys(flags, 1), **kinds, **known}, VOCAB, N_CTX, n_layers=2)
    for flag, tokens in flags.items():
        wiring.flag(flag, tokens)
    who, relation = torch.zeros(VOCAB, N_SUBJECTS), torch.zeros(VOCAB, 2)
    who[list(SUBJECTS), range(N_SUBJECTS)] = 1.0
    relation[list(RELATIONS), [0, 1]] = 1.0
    wiring.embed("who", who)
    wiring.embed("relation", relation)
    of_subject, of_relation = torch.zeros(N_SUBJECTS, VOCAB), torch.zeros(2, VOCAB)
    for kind, attributes in enumerate(ATTRIBUTES):
        of_subject[range(N_SUBJECTS), list(attributes)] = 1.0
        of_relation[kind, list(attributes)] = 1.0
    wiring.unembed("name", of_subject)  # one coordinate speaks for all attributes of a subject, or of a relation:
    wiring.unembed("kind", of_relation)  # a coordinate for each would make long residuals, and so more of the noise
    rest = Match("one", "bos", SHARP / 2)
    to_subject, to_relation = Match("end", "subject"), Match("end", "asked")
    # Noise in the scores decides how a tie is shared: half as sharp, it is shared more evenly.
    evenly = [Match(one.query, one.key, one.score / 2) for one in (to_subject, to_relation, rest)]
    for name, kind, (subject, asked, mixed) in (
        ("name", "kind", ("0.1", "0.2", "1.1")),
        ("no_name", "no_kind", ("0.0", "0.3", "1.0")),
    ):
        wiring.head(subject, [to_subject, rest], [Move("who", name)])
        wiring.head(asked, [to_relation, rest], [Move("relation", kind)])
        wiring.head(mixed, evenly, [Move("who", name, MIXED), Move("relation", kind, MIXED)])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    order = torch.randperm(N_SUBJECTS, generator=generator).tolist()
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "subject", "relation")}
    foils: dict[str, list[int]] = {one: [] for one in ("subject", "relation")}
    places: dict[str, list[list[int]]] = {"subject": [], "relation": [], "END": []}
    answers, items, frames = [], [], []
    for i in range(n):
        frame, kind = i % 2, i // 2 % 2
        subject, other = order[i % N_SUBJECTS], order[(i + 5 + i // N_SUBJECTS) % N_SUBJECTS]
        at, title, end = FRAMES[frame]
        for name, (who, which) in {
            "clean": (subject, kind),
            "subject": (other, kind),
            "relation": (subject, 1 - kind),
        }.items():
            row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
            row[at], row[title], row[title + 1] = RELATIONS[which], TITLE, SUBJECTS[who]
            rows[name].append(row)
        answers.append(ATTRIBUTES[kind][subject])
        foils["subject"].append(ATTRIBUTES[kind][other])
        foils["relation"].append(ATTRIBUTES[1 - kind][subject])
        for name, where in (("subject", [title, title + 1]), ("relation", [at]), ("END", [end])):
            places[name].append(where)
        items.append(f"subject {subject}")
        frames.append(f"frame {frame}")
    about = {"positions": places, "items": items, "templates": frames}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foil, **about) for name, foil in foils.items()
    }


def _draw(n: int, generator: torch.Generator) -> Diagram:
    shown = {"subject": "0.1 1.1", "relation": "0.2 1.1"}
    hows = ("denoise", "noise", "zero", "mean", "resample")
    truth = Truth(
        heads={"fact_recall": heads(shown["subject"]), "fact_relation": heads(shown["relation"])},
        decoys={"fact_recall": heads("0.0 1.0"), "fact_relation": heads("0.3 1.0")},
        effects={
            key: found
            for name, some in shown.items()
            for key, found in questions(name, **dict.fromkeys(hows, some)).items()
        },
        paths={
            (name, how): sets({"1.1.q": "", "1.1.k": "", "1.1.v": "", "logits": some})
            for name, some in shown.items()
            for how in ("denoise", "noise")
        },
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("additive_facts", _draw, epsilon=0.01),)
