"""How far a head's OV circuit copies what it attends to: by behaviour and by eigenvalues (Elhage 2021; Olsson 2022)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.direct import direct_logits, effective_unembedding
from interp.circuits.embedding import direct_embedding
from interp.circuits.factored import FactoredMatrix
from interp.circuits.ov import wide, written
from interp.circuits.places import HeadPlace
from interp.model.transformer import HookedTransformer
from interp.results.tables import HeadTable

__all__ = ["copying_eigenvalues", "copying_table", "eigenvalue_score"]

_TOKENS = 16_384  # at once
_TOP = "counts only first places in the whole vocabulary: a near miss (another case, a missing space) counts as nothing"
_MEAN = "a mean over rare tokens too, which text seldom has; a head that raises all words of a kind looks like a copier"
_PLACE = "ranks say nothing of size: a weak push counts like a strong one"
_EIGEN = (
    "a head is judged by directions that no text may use, all tokens alike; bare embeddings enter, which later layers "
    "move away from, so real copiers in later layers can score low; a few large eigenvalues decide"
)


def copying_table(
    model: HookedTransformer,
    place: HeadPlace,
    circuit: FactoredMatrix,
    values: Float[Tensor, "token d_head"],
    ids: Int[Tensor, " token"],
    source: str,
    seed: int,
) -> HeadTable:
    """One row per score, with its chance level and its weakness.

    - `top_share`: share of the sampled input tokens whose own logit the head puts above all others (chance 1 / V).
    - `mean_place`: mean share of the vocabulary that stands below the token's own logit (chance .5).
    - `own_over_spread`: own logit less the mean, in standard deviations over the vocabulary (chance 0).
    - `eigenvalues`: Σ Re λ / Σ |λ| of W_O W_U W_E W_V, from −1 to 1; `eigenvalues_folded`: with the norms' gains.
    """
    layer, sublayer = place.address.layer, place.address.sublayer
    top, below, spread = [], [], []
    for chunk, own in zip(values.split(128), ids.split(128), strict=True):
        logits = direct_logits(model, written(place.stack, layer, chunk @ circuit.B, sublayer))
        mine = logits.gather(1, own[:, None])
        top.append((mine[:, 0] >= logits.amax(1)).float())
        below.append((logits < mine).float().mean(1))
        spread.append((mine[:, 0] - logits.mean(1)) / logits.std(1))
    rows = [
        ("top_share", torch.cat(top).mean(), 1 / model.cfg.d_vocab, _TOP),
        ("mean_place", torch.cat(below).mean(), 0.5, _PLACE),
        ("own_over_spread", torch.cat(spread).mean(), 0.0, _MEAN),
        ("eigenvalues", eigenvalue_score(copying_eigenvalues(model, place, circuit)), 0.0, _EIGEN),
        ("eigenvalues_folded", eigenvalue_score(copying_eigenvalues(model, place, circuit, folded=True)), 0.0, _EIGEN),
    ]
    frame = pd.DataFrame([{"score": a, "value": float(b), "chance": c, "weakness": d} for a, b, c, d in rows])
    about = {
        "model": model.cfg.model_name,
        "head": str(place.address),
        "input": source,
        "tokens": len(ids),
        "seed": seed,
    }
    left_out = (
        "Attention is left out: a head that copies what it attends to need not attend to anything worth copying. "
    )
    left_out += "Direct effects on the logits only."
    return HeadTable(frame, f"{place.address}: copying", "value", ("score",), left_out, about)


@torch.no_grad()
def copying_eigenvalues(
    model: HookedTransformer, place: HeadPlace, circuit: FactoredMatrix, *, folded: bool = False
) -> Tensor:
    """Eigenvalues of the token-to-token map W_E W_V W_O W_U that are not 0, from its d_head × d_head twin
    W_O W_U W_E W_V; the V × V matrix is never made. `folded` puts the gains of the norms in front of the head and
    of the unembedding (and of an output norm) in, and centres where LayerNorms do. Weakness: see the table."""
    block = place.stack.block(place.address.layer)
    norm = getattr(block, "ln1") if folded and block.config.norms in ("pre", "both") else None  # noqa: B009
    W_O = written(place.stack, place.address.layer, circuit.B, place.address.sublayer) if folded else circuit.B
    total: Any = 0
    for ids in torch.arange(model.cfg.d_vocab, device=model.device).split(_TOKENS):
        embed = place.stack.embed.weight[ids]
        embed = wide(embed if place.stack.embed_project is None else direct_embedding(place.stack, ids))
        if norm is not None and norm.config.kind != "none":
            embed = embed - embed.mean(-1, keepdim=True) if norm.config.kind == "layer" else embed
            embed = embed * wide(norm.gain)
        unembed = wide(effective_unembedding(model, ids) if folded else model.W_U[:, ids])
        total = total + (W_O @ unembed) @ (embed @ circuit.A)
    return torch.linalg.eigvals(total)


def eigenvalue_score(eigenvalues: Tensor) -> Float[Tensor, ""]:
    """Σ Re λ / Σ |λ|: 1 if the map only ever raises what it reads, −1 if it only lowers it."""
    return eigenvalues.real.sum() / eigenvalues.abs().sum()
