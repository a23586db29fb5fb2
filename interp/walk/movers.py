"""Steps about heads: which of them move the answer, what they look at and why, what they write, and who objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from interp.causal.knockout import knockout
from interp.causal.patching import patch
from interp.circuits.explain import explain_attention
from interp.circuits.heads_ov import ov
from interp.circuits.logit_attribution import logit_attribution
from interp.pairs import PromptPairs
from interp.walk.setting import SUBJECT, Outcome, Setting, Step

__all__ = ["heads", "key_match", "later_mlps", "looking_decides", "objectors", "query_match", "reads_subject", "writes"]

_LAST = f"{SUBJECT}:last"
_LEAST = 0.1  # of clean − corrupt: what makes a head one of the movers
_MOST = 6


def heads(at: Setting) -> Step:
    """Exchange every head at the last token."""
    grids = [
        patch(at.model, one, "z", over=("layer", "head"), direction="noise", at={"pos": "read"}, progress=False)
        for one in at.both
    ]
    here = grids[0].mean(normalize="pooled")
    blocks = at.model.main.config.blocks
    every = [(layer, head) for layer, block in enumerate(blocks) for head in range(block.attn.n_heads)]
    ranked = sorted(every, key=lambda one: -float(here.values[one]))
    movers = [one for one in ranked[:_MOST] if here.values[one] >= _LEAST] or ranked[:1]
    at.found["movers"] = [f"{layer}.{head}" for layer, head in movers]
    at.found["heads"] = grids
    first = at.shares(grids, layer=movers[0][0], head=movers[0][1])
    others = [one for one in every if one[0] == movers[0][0] and one != movers[0]]
    control = [float(here.values[one]) for one in others]
    shown = []
    for layer, head in movers:
        shown.append(f"{layer}.{head} {at.shares(grids, layer=layer, head=head).shown()}")
    said = "Share lost: " + "; ".join(shown) + "."
    if control:
        said += f" Other heads of layer {movers[0][0]}: {min(control):.0%} to {max(control):.0%} here."
    if at.others is not None:
        mean = grids[1].mean(normalize="pooled").values
        rank = sum(float(mean[one]) > float(mean[movers[0]]) for one in every) + 1
        best = max(every, key=lambda one: float(mean[one]))
        said += f" On the others {at.movers[0]} ranks {rank} of {len(every)}; first is {best[0]}.{best[1]}."
    details = []
    for layer, head in ranked:
        one = at.shares(grids, layer=layer, head=head)
        details.append({"what": "head exchanged", "place": f"{layer}.{head}", "value": one.here, "mean": one.mean})
    return Step(
        "Heads bring it to the last token",
        f"Head {at.movers[0]} carries at least {_LEAST:.0%} of it by itself.",
        "each head's output at the last token exchanged, one at a time, exactly",
        first,
        _LEAST,
        "share",
        said,
        details,
    )


def reads_subject(at: Setting) -> Step:
    """Cut the edge from the last token to the subject."""
    head = at.movers[0]
    cut = [knockout(at.model, one, "read", SUBJECT, heads=[head], over=(), progress=False) for one in at.both]
    lost = at.shares(cut)
    at.found["cut"] = cut
    looks = at.spread([_attention(at, one, head) for one in at.both])
    return Step(
        f"{head} looks at the subject",
        f"Head {head} at the last token reads {at.about['subject']!r}, and that edge carries the answer.",
        f"the edge from the last token to the subject cut in {head} alone, the rest of its attention renormalised",
        lost,
        _LEAST,
        "share",
        f"Share of clean − corrupt lost: {lost.shown()}. Attention to the subject: {looks.shown()} (an observation).",
    )


def key_match(at: Setting) -> Step:
    """Replace the largest source of the key."""
    return _match(at, "key")


def query_match(at: Setting) -> Step:
    """Replace the largest source of the query."""
    return _match(at, "query")


def _match(at: Setting, side: str) -> Step:
    head = at.movers[0]
    ids, ends = (at.case.read[0], at.subject), {"answer": at.case.answer[0][0][0], "foil": at.case.foil[0][0][0]}
    here = explain_attention(at.model, _ids(at.case, 0), head, *ids, confirm=True, **ends)  # type: ignore[arg-type]
    rows = here.marginals()
    largest = rows.loc[(rows["side"] == side) & (rows["kind"] != "bias") & (rows["source"] != "position bias")]
    named = [one for one in largest["source"] if one in _replaceable(here, side)]
    source = str(named[0])
    part = float(largest.loc[largest["source"] == source, "part"].iloc[0])
    falls, answers = [], []
    for pairs in at.both:
        fall, answer = [], []
        for i in range(len(pairs)):
            question: dict[str, Any] = {"answer": pairs.answer[i][0][0], "foil": pairs.foil[i][0][0]}
            found = explain_attention(
                at.model, _ids(pairs, i), head, pairs.read[i], pairs.span(_LAST, i)[0], confirm=source, **question
            )
            assert found.confirmed is not None
            row = found.confirmed.set_index("side").loc[side]
            fall.append(1 - float(row["attention_after"]) / float(row["attention"]))
            answer.append(-float(row["answer_change"]))
        falls.append(np.array(fall))
        answers.append(np.array(answer))
    lost, harm = at.spread(falls), at.spread(answers)
    at.found[f"{side} harm"] = (source, answers)
    place = "the subject's key" if side == "key" else "the last token's query"
    return Step(
        f"Why {head} looks there: the {side}",
        f"{source} in {place}, with the largest part in the match, makes {head} look.",
        f"{source} replaced in {place} alone by its mean at the other tokens, norms recomputed",
        lost,
        _LEAST,
        "share",
        f"Its part is {part:+.2f} of a contrast of {here.total():.2f}. Share of the attention lost: {lost.shown()}. "
        f"The answer's logit difference falls by {harm.shown('logits')}.",
    )


def looking_decides(at: Setting) -> Step:
    """Whether what makes the head look is what makes the answer."""
    (key, key_harm), (query, query_harm) = at.known("key harm"), at.known("query harm")
    gaps = at.known("gap")
    by_key = at.spread([a / b for a, b in zip(key_harm, gaps, strict=True)])
    by_query = at.spread([a / b for a, b in zip(query_harm, gaps, strict=True)])
    return Step(
        "So the match makes the answer",
        f"Because {key} in the key meets the query, {at.movers[0]} looks, and so {at.about['answer']!r} is said.",
        f"as before: {key} replaced in the subject's key alone (and {query} in the last token's query alone)",
        by_key,
        _LEAST,
        "share",
        f"Share of clean − corrupt that the answer loses: {by_key.shown()} by the key's, {by_query.shown()} by the "
        "query's. What makes a head look need not be what decides.",
    )


def writes(at: Setting) -> Step:
    """What the head writes of the subject, beside what cutting the edge costs."""
    head = at.movers[0]
    circuit, direct, whole = ov(at.model, head), [], []
    for pairs in at.both:
        parts, sums = [], []
        for i in range(len(pairs)):
            answer, foil = pairs.answer[i][0][0], pairs.foil[i][0][0]
            table = circuit.attribution(_ids(pairs, i), answer, foil, query=pairs.read[i]).frame
            parts.append(float(table["logit"].to_numpy()[list(pairs.span(SUBJECT, i))].sum()))
            sums.append(float(table["logit"].to_numpy().sum()))
        direct.append(np.array(parts))
        whole.append(np.array(sums))
    share = at.spread([a / b for a, b in zip(direct, at.known("gap"), strict=True)])
    logits, cut = at.spread(direct), at.spread([-one.values.values.reshape(-1) for one in at.known("cut")])
    top = circuit.tokens(_ids(at.case, 0), at.subject, k=5).frame
    words = [str(one) for one in top["token"].head(5)] if "token" in top else []
    return Step(
        f"{head} writes the answer",
        f"What {head} writes of {at.about['subject']!r} raises {at.about['answer']!r} over {at.about['foil']!r} by "
        "itself.",
        "none of its own: the direct part, beside what cutting the edge costs",
        share,
        _LEAST,
        "share",
        f"Direct part of the edge: {logits.shown('logits')}; cutting it costs {cut.shown('logits')}. "
        f"{at.spread(whole).shown('logits')} from all its sources."
        + (f" Promoted most here: {', '.join(map(repr, words))}." if words else ""),
    )


def objectors(at: Setting) -> Step:
    """The head with the most negative direct part, exchanged."""
    found = logit_attribution(at.model, at.case, by="head")
    table = found.mean()
    only = table.loc[table["kind"] == "head"].sort_values("value")
    row = only.iloc[0]
    layer, head = int(row["layer"]), int(row["head"])
    grids = at.known("heads")
    raised = at.shares(grids, layer=layer, head=head)
    gain = Outcome(-raised.here, -raised.mean, -raised.high, -raised.low, raised.n)
    movers = table.loc[table["part"].isin(at.movers), "value"].sum()
    mlps = table.loc[table["kind"] == "mlp", "value"].sum()
    return Step(
        "A head works against it",
        f"Head {layer}.{head}, whose direct part is the most negative, works against what is specific to the subject.",
        f"{layer}.{head}'s output at the last token exchanged: then the difference should rise",
        gain,
        0.02,
        "share",
        f"Direct parts here: {layer}.{head} {row['value']:+.2f} logits, the movers {movers:+.2f}, all heads "
        f"{only['value'].sum():+.2f}, all MLPs {mlps:+.2f}. Share gained by the exchange: {gain.shown()}.",
    )


def later_mlps(at: Setting) -> Step:
    """MLPs at the last token behind the first mover."""
    start = int(at.movers[0].split(".")[0])
    behind = [f"mlp_out.{layer}" for layer in range(start, at.n_layers)]
    before = [f"mlp_out.{layer}" for layer in range(start)]
    sets = [behind, before] if before else [behind]
    runs = [
        patch(at.model, one, sets, over=("target",), direction="noise", at={"pos": "read"}, progress=False)
        for one in at.both
    ]
    names = [str(one) for one in runs[0].values["target"].values]
    lost = at.shares(runs, target=names[0])
    said = f"Share lost: {lost.shown()}."
    said += f" MLPs of the layers before it: {at.shares(runs, target=names[1]).shown()}." if before else ""
    return Step(
        "Later MLPs at the last token read it",
        f"MLPs from layer {start} on, at the last token, turn what was brought into the answer.",
        "their outputs at the last token exchanged together",
        lost,
        _LEAST,
        "share",
        said,
    )


def _replaceable(found: Any, side: str) -> set[str]:
    rows = found.confirmed
    return set(rows.loc[rows["side"] == side, "source"])


def _ids(pairs: PromptPairs, i: int) -> torch.Tensor:
    return torch.tensor([list(pairs.clean[i])])


def _attention(at: Setting, pairs: PromptPairs, head: str) -> np.ndarray:
    """The head's attention from the last token to the whole subject."""
    layer, number = map(int, head.split("."))
    site = f"{at.model.main.address}blocks.{layer}.attn.hook_pattern"
    found = []
    for i in range(len(pairs)):
        with torch.no_grad():
            _, cache = at.model.run_with_cache(_ids(pairs, i).to(at.model.device), [site], return_type=None)
        found.append(float(cache[site][0, number, pairs.read[i], list(pairs.span(SUBJECT, i))].sum()))
    return np.array(found)
