"""Steps about the whole: when the answer can be read, and how much of it the parts named explain."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.causal.patching import patch
from interp.circuits.faithfulness import graph_faithfulness
from interp.circuits.graph import attention_graph
from interp.circuits.lens import lens
from interp.model.taps import NO_TAPS
from interp.pairs import PromptPairs
from interp.walk.setting import SUBJECT, Outcome, Setting, Step

__all__ = ["all_movers", "graph", "readable"]


def readable(at: Setting) -> Step:
    """Where the lens first sees the answer, and whether that is the mover's doing."""
    head = at.movers[0]
    layer = int(head.split(".")[0])
    pin = at.case.answer[0][0][0]
    curve = lens(at.model, [list(at.case.clean[0])], pins=[pin]).curve(pos=-1)
    ranks = curve["rank"].astype(int).tolist()
    ratios, before, after = [], [], []
    for pairs in at.both:
        plain, cut = (np.array([_rank(at, pairs, i, head if c else None) for i in range(len(pairs))]) for c in (0, 1))
        ratios.append(np.log2(cut / plain))
        before.append(plain)
        after.append(cut)
    worse = at.spread(ratios)
    drops = [
        f"{i}: {rank}" for i, rank in enumerate(ranks) if i in {0, at.third, layer, layer + 1} or i >= at.n_layers - 3
    ]
    details = [{"what": "lens rank", "place": str(i), "value": float(rank), "mean": float("nan")}
               for i, rank in enumerate(ranks)]  # fmt: skip
    return Step(
        "The answer becomes readable there",
        f"Behind layer {layer} the logit lens sees {at.about['answer']!r} better because of what {head} reads of the "
        "subject.",
        f"the edge to the subject cut in {head}; the rank of the answer in the logit lens behind its layer",
        worse,
        1.0,
        "doublings",
        f"Rank by layer: {', '.join(drops)}. Behind layer {layer} it is {before[0][0]}, and {after[0][0]} with the "
        f"edge cut: {worse.shown('doublings')}.",
        details,
    )


def all_movers(at: Setting) -> Step:
    """Exchange all movers together, and all of attention's output."""
    n_layers = at.n_layers
    sets: list[Any] = [at.movers, [f"attn_out.{layer}" for layer in range(n_layers)]]
    runs = [
        patch(at.model, one, sets, over=("target",), direction="noise", at={"pos": "read"}, progress=False)
        for one in at.both
    ]
    names = [str(one) for one in runs[0].values["target"].values]
    joint, whole = at.shares(runs, target=names[0]), at.shares(runs, target=names[1])
    return Step(
        "The heads named are the whole way",
        f"{', '.join(at.movers)} together carry at least four fifths of what reaches the last token.",
        "their outputs at the last token exchanged together (control: all attention there)",
        joint,
        0.8,
        "share",
        f"Share lost: {joint.shown()}. All attention at the last token: {whole.shown()}. "
        f"Not accounted for here: {1 - joint.here:.0%}.",
    )


def graph(at: Setting) -> Step:
    """Whether the heaviest edges of attention keep the answer, beside random ones."""
    from interp.tasks.natural_text import passages

    whole = attention_graph(at.model, [list(at.case.clean[0])], top_k=0)
    shown = max(1, int(whole.about["candidates"]) // 3)
    made = attention_graph(at.model, [list(at.case.clean[0])], top_k=shown)
    answer, foil = at.case.answer[0][0][0], at.case.foil[0][0][0]
    found = graph_faithfulness(at.model, made, answer=answer, foil=foil, reference=passages(), n_random=20, seed=0)
    assert found.faithfulness is not None
    table = found.faithfulness.set_index("graph")
    kept, random, p = table.loc["shown", "faithfulness"], table.loc["random", "faithfulness"], table.loc["shown", "p"]
    ahead = float(kept - random)  # type: ignore[operator]
    return Step(
        "The heaviest edges are the ones that count",
        "A third of attention's edges, those that move most, keep the answer better than random ones.",
        "every other edge set to its mean over the bundled passages",
        Outcome(ahead),
        0.1,
        "share",
        f"{shown} of {whole.about['candidates']} edges keep {kept:.0%} of the difference, 20 random graphs "
        f"{random:.0%} ({table.loc['random', 'lowest']:.0%} to {table.loc['random', 'highest']:.0%}), p = {p:.2f}. "
        "This prompt alone.",
        verdict="supports" if p <= 0.05 and ahead >= 0.1 else "contradicts" if ahead < 0 else "cannot tell",
    )


@torch.no_grad()
def _rank(at: Setting, pairs: PromptPairs, i: int, cut: str | None) -> int:
    """The answer's rank in the logit lens behind the first mover's layer, with or without its edge to the subject."""
    model, layer = at.model, int(at.movers[0].split(".")[0])
    address = f"{model.main.address}blocks.{layer}."
    kept: dict[str, Tensor] = {}

    def block(scores: Tensor, hook: Any, head: int) -> Tensor:
        scores = scores.clone()
        scores[0, head, pairs.read[i], list(pairs.span(SUBJECT, i))] = -torch.inf
        return scores

    def keep(resid: Tensor, hook: Any) -> None:
        kept["resid"] = resid[:, pairs.read[i]].detach()

    hooks: list[Any] = [(f"{address}hook_resid_post", keep)]
    if cut is not None:
        hooks.append((f"{address}attn.hook_attn_scores", partial(block, head=int(cut.split(".")[1]))))
    model.run_with_hooks(torch.tensor([list(pairs.clean[i])], device=model.device), fwd_hooks=hooks, return_type=None)
    unembed, normed = model.need_unembed(), model.main.ln_final(kept["resid"], NO_TAPS)
    logits = torch.nn.functional.linear(normed, unembed.weight, unembed.bias)[0]
    answer = pairs.answer[i][0][0]
    return int((logits > logits[answer]).sum()) + 1
