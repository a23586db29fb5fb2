"""A subject's MLP knows its attributes; the head of a relation extracts the one that is asked for."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import questions, sets
from interp.planted.wiring import SHARP, Match, Move, Neurons, Wiring

__all__ = ["CIRCUITS"]

BOS, END, TITLE, N_SUBJECTS, N_CTX = 0, 1, 2, 32, 10
FILLERS, RELATIONS = range(3, 9), range(9, 11)
SUBJECTS = range(11, 11 + N_SUBJECTS)
NONCE = range(SUBJECTS.stop, SUBJECTS.stop + 8)  # subjects that no neuron knows
ATTRIBUTES = [range(NONCE.stop + i * N_SUBJECTS, NONCE.stop + (i + 1) * N_SUBJECTS) for i in range(2)]
VOCAB = ATTRIBUTES[1].stop
FRAMES = ((1, 3, 6), (2, 5, 8))  # places of the relation, of the subject's title (its name follows), and the last one
ABOUT = """\
"BOS … capital … of Mount X … END" wants X's capital. The relation mover 0.1 brings the relation to END. The MLP of
layer 1 has a neuron for each known subject, which writes at the subject's last token both its attributes, one in each
of two subspaces. The extraction head 2.1 attends from END to the subject if the relation is the first one, and copies
the attribute of the first kind; 2.2 does so for the second. 2.0 attends as 2.1 and 2.3 as 2.2; both write where
nothing reads. Changing the subject (`subject`, or `nonce`: to one that no neuron knows) is carried by the MLP and the
extraction heads; changing the relation (`relation`) by the mover and the extraction heads, not by the MLP."""


def _wiring() -> Wiring:
    widths = {"tok": VOCAB, "one": 1, "bos": 1, "end": 1, "relation": 2, "subject": 1, "asked": 2}
    widths |= {"first": N_SUBJECTS, "second": N_SUBJECTS, "out": VOCAB, "junk": N_SUBJECTS}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=3)
    relation = torch.zeros(VOCAB, 2)
    relation[list(RELATIONS), [0, 1]] = 1.0
    wiring.embed("tok", silent=BOS)
    wiring.embed("relation", relation)
    for flag, tokens in (("one", range(VOCAB)), ("bos", [BOS]), ("end", [END]), ("subject", range(11, NONCE.stop))):
        wiring.flag(flag, tokens)
    wiring.unembed("out")
    rest = Match("one", "bos", 0.75 * SHARP)  # an average of the two relations does not wake the extraction heads
    wiring.head("0.1", [Match("end", "relation", table=torch.ones(1, 2)), rest], [Move("relation", "asked")])
    known = torch.zeros(VOCAB, N_SUBJECTS)
    known[list(SUBJECTS), range(N_SUBJECTS)] = 1.0
    for space in ("first", "second"):
        wiring.layer(1, Neurons("tok", space, into=known, out=torch.eye(N_SUBJECTS)))
    for kind, (head, twin) in enumerate((("2.1", "2.0"), ("2.2", "2.3"))):
        space = ("first", "second")[kind]
        asked = [Match("asked", "subject", table=torch.eye(2)[:, kind : kind + 1]), rest]
        name_it = torch.zeros(N_SUBJECTS, VOCAB)
        name_it[range(N_SUBJECTS), list(ATTRIBUTES[kind])] = 1.0
        wiring.head(head, asked, [Move(space, "out", table=name_it)])
        wiring.head(twin, asked, [Move(space, "junk")])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    order = torch.randperm(N_SUBJECTS, generator=generator).tolist()
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "subject", "relation", "nonce")}
    foils: dict[str, list[int]] = {one: [] for one in ("subject", "relation", "nonce")}
    places: dict[str, list[list[int]]] = {"subject": [], "relation": [], "END": []}
    answers, items, frames = [], [], []
    for i in range(n):
        frame, kind = i % 2, (i // 2 + i // N_SUBJECTS) % 2  # asked again, a subject is asked for the other relation
        subject, other = order[i % N_SUBJECTS], order[(i + 5 + i // N_SUBJECTS) % N_SUBJECTS]
        at, title, end = FRAMES[frame]
        for name, (who, which) in {
            "clean": (SUBJECTS[subject], kind),
            "subject": (SUBJECTS[other], kind),
            "relation": (SUBJECTS[subject], 1 - kind),
            "nonce": (NONCE[i % len(NONCE)], kind),
        }.items():
            row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
            row[at], row[title], row[title + 1] = RELATIONS[which], TITLE, who
            rows[name].append(row)
        answers.append(ATTRIBUTES[kind][subject])
        foils["subject"].append(ATTRIBUTES[kind][other])
        foils["relation"].append(ATTRIBUTES[1 - kind][subject])
        foils["nonce"].append(ATTRIBUTES[kind][other])
        for name, where in (("subject", [title, title + 1]), ("relation", [at]), ("END", [end])):
            places[name].append(where)
        items.append(f"subject {subject}")
        frames.append(f"frame {frame}")
    about = {"positions": places, "items": items, "templates": frames}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foil, **about) for name, foil in foils.items()
    }


def _draw(n: int, generator: torch.Generator) -> Diagram:
    extraction, whole = "2.1 2.2", "0.1 2.1 2.2 mlp_out.1"
    by_subject, by_relation = f"{extraction} mlp_out.1", f"0.1 {extraction}"
    ablated = {"zero": whole, "mean": whole, "resample": whole}
    truth = Truth(
        heads={"fact_recall": heads(extraction), "relation_mover": heads("0.1")},
        decoys={"fact_recall": heads("2.0 2.3")},
        effects={
            **questions("subject", denoise=by_subject, noise=by_subject, **ablated),
            **questions("relation", denoise=by_relation, noise=by_relation, **ablated),
            **questions("nonce", denoise=by_subject, noise=by_subject, **ablated),
        },
        paths={
            ("subject", "noise"): sets(
                {"2.1.v": "mlp_out.1", "2.2.v": "mlp_out.1", "2.1.q": "", "2.1.k": "", "logits": extraction}
            ),
            ("relation", "noise"): sets({"2.1.q": "0.1", "2.2.q": "0.1", "2.1.v": "", "logits": extraction}),
        },
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("fact_recall", _draw, epsilon=0.02),)
