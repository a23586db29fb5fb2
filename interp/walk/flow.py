"""Steps about the behaviour and about where information stands, layer by layer."""

from __future__ import annotations

import numpy as np
import torch

from interp.causal.patching import patch
from interp.walk.setting import SUBJECT, Outcome, Setting, Step

__all__ = ["behaviour", "early", "late", "memory"]

_LAST = f"{SUBJECT}:last"


def behaviour(at: Setting) -> Step:
    """Whether the model says it, and whether the subject is what makes it."""
    logits = at.model(torch.tensor([list(at.case.clean[0])], device=at.model.device))[0, at.case.read[0]].detach()
    answer = at.case.answer[0][0][0]
    rank = int((logits > logits[answer]).sum()) + 1
    prob = float(logits.double().softmax(-1)[answer])
    # Exchanging every token of the subject at layer 0 is the corrupt run.
    sweep = {"over": ("layer",), "direction": "noise", "at": {"layer": [0]}, "progress": False}
    runs = [patch(at.model, one, "resid_pre", **sweep) for one in at.both]
    clean, corrupt = ([np.asarray(getattr(one, side), dtype=float) for one in runs] for side in ("base", "source"))
    lost = at.spread([a - b for a, b in zip(clean, corrupt, strict=True)])
    said = f"p({at.about['answer']!r}) = {prob:.2f}, rank {rank}; {at.about['answer']!r} − {at.about['foil']!r} is "
    said += f"{clean[0][0]:.2f} logits, and {corrupt[0][0]:.2f} for {at.about['corrupt']!r}. "
    said += f"Lost by the exchange: {lost.shown('logits')}."
    if at.others is not None:
        right = np.mean((clean[1] > 0) & (corrupt[1] < 0))
        said += f" The answer wins before the exchange and loses behind it in {right:.0%} of the others."
    at.found["gap"] = [a - b for a, b in zip(clean, corrupt, strict=True)]
    at.found["clean"] = clean
    return Step(
        "The model says it, because of the subject",
        f"The model prefers {at.about['answer']!r}, and it is {at.about['subject']!r} that makes it do so.",
        "the subject's tokens exchanged for another subject's",
        lost,
        1.0,
        "logits",
        said,
        verdict="contradicts" if clean[0][0] <= 0 else "",
    )


def early(at: Setting) -> Step:
    """What is specific to the subject stands at its token."""
    names = [_LAST, "read"]
    grids = [
        patch(
            at.model,
            one,
            "resid_pre",
            over=("layer", "position"),
            direction="noise",
            at={"position": names},
            progress=False,
        )
        for one in at.both
    ]
    at.found["residual"] = grids
    subject = at.shares(grids, layer=at.third, position=_LAST)
    end = at.shares(grids, layer=at.third, position="read")
    details = []
    for layer in range(at.n_layers):
        for name in names:
            one = at.shares(grids, layer=layer, position=name)
            details.append(
                {"what": "residual exchanged", "place": f"{layer} {name}", "value": one.here, "mean": one.mean}
            )
    return Step(
        "It first stands at the subject",
        f"Entering layer {at.third}, most of what decides still stands at {at.about['subject']!r}.",
        f"the residual entering layer {at.third} exchanged at the subject's last token (at the last token: control)",
        subject,
        0.5,
        "share",
        f"Share of the difference lost: {subject.shown()}; at the last token instead: {end.shown()}.",
        details,
    )


def late(at: Setting) -> Step:
    """By some layer it has moved to the last token."""
    grids = at.known("residual")
    here = [at.shares(grids[:1], layer=layer, position="read").here for layer in range(at.n_layers)]
    layer = next((i for i, share in enumerate(here) if share >= 0.5), at.n_layers - 1)
    end, left = at.shares(grids, layer=layer, position="read"), at.shares(grids, layer=layer, position=_LAST)
    at.found["arrived"] = layer
    steepest = int(np.argmax(np.diff(here))) if len(here) > 1 else 0
    return Step(
        "It has moved to the last token",
        f"Entering layer {layer} (the first where it is half here), most of it stands at the last token.",
        f"the residual entering layer {layer} exchanged at the last token (at the subject: what is still read there)",
        end,
        0.5,
        "share",
        f"Share lost: {end.shown()}; at the subject instead: {left.shown()}. Here the largest rise at the last token "
        f"is in layer {steepest}, from {here[steepest]:.0%} to {here[min(steepest + 1, len(here) - 1)]:.0%}. The layer "
        "was chosen on this prompt.",
    )


def memory(at: Setting) -> Step:
    """MLPs at the subject write what is needed."""
    if at.model.cfg.attn_only:
        return Step("MLPs", "MLPs at the subject write it.", "none", Outcome(float("nan")), 0.0, "share",
                    "This model has no MLPs.")  # fmt: skip
    first = [f"mlp_out.{layer}" for layer in range(1, at.third)] or ["mlp_out.0"]
    attn = [one.replace("mlp_out", "attn_out") for one in first]
    sets = {"MLPs": first, "attention": attn, "MLP 0 alone": ["mlp_out.0"]}

    def measured(place: str) -> dict[str, Outcome]:
        runs = [
            patch(
                at.model,
                one,
                list(sets.values()),
                over=("target",),
                direction="noise",
                at={"pos": place},
                progress=False,
            )
            for one in at.both
        ]
        return {name: at.shares(runs, target=runs[0].values["target"].values[i]) for i, name in enumerate(sets)}

    there, control = measured(_LAST), measured("read")
    layers = f"1 to {at.third - 1}" if at.third > 1 else "0"
    return Step(
        "Early MLPs at the subject write it",
        f"MLPs of layers {layers} at {at.about['subject']!r} write much of what decides.",
        "their outputs exchanged together at the subject's last token (controls: the same layers' attention there, "
        "their MLPs at the last token, and MLP 0, which knows the bare token)",
        there["MLPs"],
        0.25,
        "share",
        f"Share lost: {there['MLPs'].shown()}. The same layers' attention: {there['attention'].shown()}. MLP 0 alone: "
        f"{there['MLP 0 alone'].shown()}. The MLPs at the last token: {control['MLPs'].shown()}.",
    )
