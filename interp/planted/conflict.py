"""The context says one thing and memory another: a head copies the context, a weaker one recalls."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import questions, sets
from interp.planted.wiring import SHARP, Match, Move, Neurons, Wiring

__all__ = ["CIRCUITS"]

BOS, END, N_EACH, N_CTX = 0, 1, 32, 14
FILLERS = range(2, 8)
SUBJECTS = range(8, 8 + N_EACH)
NONCE = range(SUBJECTS.stop, SUBJECTS.stop + 8)  # subjects that no neuron knows
THINGS = range(NONCE.stop, NONCE.stop + 8)  # what an irrelevant context speaks of
OBJECTS = range(THINGS.stop, THINGS.stop + N_EACH)
VOCAB = OBJECTS.stop
NAMED = range(8, OBJECTS.start)  # all that something can be said of
FRAMES = ((1, 7, 9), (2, 8, 11))  # places of the context's subject (its object follows), of the subject, and the last
SECOND = 6  # where the question begins
MEMORY = 0.6
ABOUT = """\
"BOS … X Rome … X … END": the context says "Rome" of X, and the model remembers "Paris". The in-context head 1.1 attends
from END to the object of a context about the subject that is asked for, and copies it; 0.1 notes at each token what it
is said of, the token before, and 0.2 brings the subject to END. Of known subjects a neuron of the MLP of layer 0 writes
the remembered object at the subject, and the in-weights head 1.2 takes it from the question's subject to END, with 0.6
of the strength: the context wins. 0.0 attends as 0.1, 1.0 as 1.1 and 1.3 as 1.2; they write where nothing reads.
Corruption `consistent` lets the context say what is remembered: 1.1 alone carries that. `unknown` puts a subject that
no neuron knows in both places, so that the MLP and 1.2 have nothing to say and the context's answer gains; `irrelevant`
lets the context speak of something else, which 0.1 tells 1.1 (put back there, 1.1 copies what is said of the other)."""


def _wiring() -> Wiring:
    flags = {"one": range(VOCAB), "bos": [BOS], "end": [END], "object": OBJECTS, "subject": [*SUBJECTS, *NONCE]}
    widths = {**dict.fromkeys(flags, 1), "second": 1, "pos": N_CTX, "who": len(NAMED), "about": len(NAMED)}
    widths |= {"asked": len(NAMED), "what": N_EACH, "known": N_EACH, "out": N_EACH, "junk": len(NAMED)}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2)
    for flag, tokens in flags.items():
        wiring.flag(flag, tokens)
    who, what = torch.zeros(VOCAB, len(NAMED)), torch.zeros(VOCAB, N_EACH)
    who[list(NAMED), range(len(NAMED))] = 1.0
    what[list(OBJECTS), range(N_EACH)] = 1.0
    wiring.embed("who", who)
    wiring.embed("what", what)
    wiring.unembed("out", what.T)
    wiring.place("pos")
    wiring.place("second", (torch.arange(N_CTX) >= SECOND)[:, None])
    before = torch.diag(torch.ones(N_CTX - 1, dtype=torch.float64), -1)  # the query at j matches the key at j − 1
    previous = [Match("pos", "pos", table=before)]
    rest = Match("one", "bos", 1.5 * SHARP)  # half a match short of both
    to_asked = [Match("end", "subject"), Match("end", "second"), rest]
    to_said = [Match("end", "object"), Match("asked", "about"), rest]
    wiring.head("0.1", previous, [Move("who", "about")])
    wiring.head("0.0", previous, [Move("who", "junk")])
    wiring.head("0.2", to_asked, [Move("who", "asked")])
    known = torch.zeros(len(NAMED), N_EACH)
    known[range(N_EACH), range(N_EACH)] = 1.0
    wiring.layer(0, Neurons("who", "known", into=known, out=torch.eye(N_EACH)))
    nowhere = torch.eye(N_EACH, len(NAMED))
    wiring.head("1.1", to_said, [Move("what", "out")])
    wiring.head("1.0", to_said, [Move("what", "junk", table=nowhere)])
    wiring.head("1.2", to_asked, [Move("known", "out", MEMORY)])
    wiring.head("1.3", to_asked, [Move("known", "junk", MEMORY, nowhere)])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> dict[str, PromptPairs]:
    order = torch.randperm(N_EACH, generator=generator).tolist()
    rows: dict[str, list[list[int]]] = {one: [] for one in ("clean", "consistent", "unknown", "irrelevant")}
    places: dict[str, list[int]] = {one: [] for one in ("context_subject", "context_object", "subject", "END")}
    answers, foils, items, frames = [], [], [], []
    for i in range(n):
        frame, mine, turn = i % 2, order[i % N_EACH], i // N_EACH
        said, other = (order[(i + step + turn) % N_EACH] for step in (5, 11))
        name, thing = NONCE[i % len(NONCE)], THINGS[i % len(THINGS)]
        at, asked, end = FRAMES[frame]
        for which, (context, what, subject) in {
            "clean": (SUBJECTS[mine], said, SUBJECTS[mine]),
            "consistent": (SUBJECTS[mine], mine, SUBJECTS[mine]),
            "unknown": (name, said, name),
            "irrelevant": (thing, other, SUBJECTS[mine]),
        }.items():
            row = [BOS, *(FILLERS[(3 * frame + k) % len(FILLERS)] for k in range(end - 1)), END]
            row[at], row[at + 1], row[asked] = context, OBJECTS[what], subject
            rows[which].append(row)
        answers.append(OBJECTS[said])
        foils.append(OBJECTS[mine])
        for place, where in zip(places, (at, at + 1, asked, end), strict=True):
            places[place].append(where)
        items.append(f"subject {mine}")
        frames.append(f"frame {frame}")
    about = {"positions": places, "items": items, "templates": frames}
    return {
        name: PromptPairs.from_tokens(rows["clean"], rows[name], answers, foils, **about)
        for name in ("consistent", "unknown", "irrelevant")
    }


def _draw(n: int, generator: torch.Generator) -> Diagram:
    subject, context, whole = "0.1 0.2 1.2 mlp_out.0", "0.1 1.1", "0.1 0.2 1.1 1.2 mlp_out.0"
    ablated = {"zero": whole, "mean": whole, "resample": whole}
    truth = Truth(
        heads={
            "in_context": heads("1.1"),
            "in_weights": heads("1.2"),
            "said_of": heads("0.1"),
            "asked_for": heads("0.2"),
        },
        decoys={"in_context": heads("1.0"), "in_weights": heads("1.3"), "said_of": heads("0.0")},
        effects={
            **questions("consistent", denoise="1.1", noise="1.1", **ablated),
            **questions("unknown", denoise=subject, noise=subject, **ablated),
            **questions("irrelevant", denoise="1.1", noise=context, **ablated),
        },
        paths={
            ("consistent", "noise"): sets({"1.1.q": "", "1.1.k": "", "1.1.v": "", "1.2.v": "", "logits": "1.1"}),
            ("unknown", "noise"): sets(
                {"1.1.q": "0.2", "1.1.k": "0.1", "1.1.v": "", "1.2.v": "mlp_out.0", "1.2.k": "", "logits": "1.2"}
            ),
            ("irrelevant", "noise"): sets({"1.1.q": "", "1.1.k": "0.1", "1.2.v": "", "logits": "1.1"}),
        },
        raises=heads("1.2"),
    )
    return Diagram(_wiring(), _pairs(n, generator), truth, ABOUT)


CIRCUITS = (Circuit("conflict", _draw, epsilon=0.01),)
