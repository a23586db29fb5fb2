"""previous token → induction, beside heads with the same attention that do nothing."""

from __future__ import annotations

import torch

from interp.pairs import PromptPairs
from interp.planted.base import Circuit, Diagram, Truth, heads
from interp.planted.prompts import questions, sets
from interp.planted.wiring import Match, Move, Wiring

__all__ = ["CIRCUITS"]

VOCAB, N_CTX, HALF, AT = 80, 104, 10, 4  # the block has 10 tokens; the prompt ends on its fifth
ABOUT = """\
Head 0.1 attends to the previous token and writes it into `prev`: "the token before me was A". Head 1.2 looks, from
the second A, for a position that says so, and copies the token there, B, into the output: A B … A → B. Head 0.0
attends exactly as 0.1 and head 1.0 exactly as 1.2, but both write where nothing reads; head 0.3 attends to earlier
copies of the token, and does nothing either. Corruption `answer` changes B: only the induction head carries that.
Corruption `prefix` changes the A in front of it: now the previous-token head has an effect too, through the keys of
1.2."""


def _wire(n_kv_heads: int) -> Wiring:
    widths = {"tok": VOCAB, "pos": N_CTX, "prev": VOCAB, "out": VOCAB, "junk": VOCAB}
    wiring = Wiring(widths, VOCAB, N_CTX, n_layers=2, n_kv_heads=n_kv_heads)
    wiring.embed("tok")
    wiring.place("pos")
    wiring.unembed("out")
    before = torch.diag(torch.ones(N_CTX - 1, dtype=torch.float64), -1)  # the query at j matches the key at j − 1
    follows, same = [Match("tok", "prev")], [Match("tok", "tok")]
    previous = [Match("pos", "pos", table=before)]
    true, twin = ("1.2", "1.0") if n_kv_heads == 4 else ("1.1", "1.0")  # twins share their keys and values
    wiring.head("0.1", previous, [Move("tok", "prev")])
    wiring.head("0.0", previous, [Move("tok", "junk")])
    wiring.head("0.3", same, [Move("tok", "junk")])
    wiring.head(true, follows, [Move("tok", "out")])
    wiring.head(twin, follows, [Move("tok", "junk")])
    return wiring


def _pairs(n: int, generator: torch.Generator) -> tuple[dict[str, PromptPairs], torch.Tensor]:
    draws = torch.stack([torch.randperm(VOCAB - 8, generator=generator)[: HALF + 2] + 4 for _ in range(n)])
    blocks, spare, other = draws[:, :HALF], draws[:, HALF], draws[:, HALF + 1]
    clean = torch.cat([blocks, blocks[:, : AT + 1]], dim=1)
    answer_gone, prefix_gone = clean.clone(), clean.clone()
    answer_gone[:, AT + 1], prefix_gone[:, AT] = spare, spare
    shared = {
        "answer": clean[:, AT + 1].tolist(),
        "positions": {"prefix": AT, "answer": AT + 1, "END": HALF + AT},
        "templates": ["repeated"] * n,
    }
    pairs = {
        "answer": PromptPairs.from_tokens(clean, answer_gone, foil=spare.tolist(), **shared),
        "prefix": PromptPairs.from_tokens(clean, prefix_gone, foil=other.tolist(), **shared),
    }
    rows = torch.stack([torch.randperm(VOCAB - 8, generator=generator)[:25] + 4 for _ in range(n)])
    return pairs, rows.repeat(1, 2)


def _draw(n: int, generator: torch.Generator, n_kv_heads: int = 4) -> Diagram:
    pairs, tokens = _pairs(n, generator)
    true, about = ("1.2", ABOUT) if n_kv_heads == 4 else ("1.1", ABOUT.replace("1.2", "1.1"))
    both = f"0.1 {true}"
    truth = Truth(
        heads={"previous_token": heads("0.1"), "induction": heads(true)},
        decoys={"previous_token": heads("0.0"), "induction": heads("1.0"), "duplicate_token": heads("0.3")},
        effects={
            **questions("answer", denoise=true, noise=true, zero=both, mean=both, resample=both),
            **questions("prefix", denoise=both, noise=both, zero=both, mean=both, resample=both),
        },
        paths={
            ("prefix", "noise"): sets({f"{true[0]}.{_kv(true, n_kv_heads)}.k": "0.1", "logits": true, f"{true}.q": ""}),
            ("answer", "noise"): sets({f"{true[0]}.{_kv(true, n_kv_heads)}.k": "", "logits": true}),
        },
    )
    if n_kv_heads != 4:
        about += " Twins share one key/value head here (grouped queries), so not even keys and values tell them apart."
    return Diagram(_wire(n_kv_heads), pairs, truth, about, tokens)


def _kv(head: str, n_kv_heads: int) -> int:
    return int(head.split(".")[1]) * n_kv_heads // 4


def _grouped(n: int, generator: torch.Generator) -> Diagram:
    return _draw(n, generator, n_kv_heads=2)


CIRCUITS = (Circuit("induction", _draw, epsilon=0.01), Circuit("induction_grouped", _grouped, epsilon=0.01))
