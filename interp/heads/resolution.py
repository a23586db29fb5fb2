"""How well an encoder has resolved a pronoun, without a probe: its sentence embedding should lie nearer to that of the
sentence which says the antecedent in the pronoun's place than to the one which says the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.metrics import ResidualMetric, residual_metric
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

__all__ = ["resolution"]

NAME = "similarity to the sentence with the antecedent, less that to the one with the distractor"


Sentences = Sequence[str] | Sequence[Sequence[int]]


def resolution(model: HookedTransformer, antecedent: Sentences, distractor: Sentences) -> ResidualMetric:
    """The metric of pairs whose n-th clean prompt these sentences (text or token ids) resolve: a difference of cosines
    between mean-pooled embeddings, −2 to 2; 0 where the pronoun leaves no trace of who is meant."""
    right, wrong = (_embeddings(model, texts) for texts in (antecedent, distractor))

    def nearer(resid: Float[Tensor, "cell some_pos d_model"], pair: Tensor) -> Float[Tensor, " cell"]:
        pooled = resid.mean(dim=1)
        to_right, to_wrong = (F.cosine_similarity(pooled, one[pair].to(pooled), dim=-1) for one in (right, wrong))
        return to_right - to_wrong

    return residual_metric(nearer, at="all", name=NAME, unit="cosine")


@torch.no_grad()
def _embeddings(model: HookedTransformer, texts: Sentences) -> Float[Tensor, "text d_model"]:
    """Means of the finished residuals of each text, one at a time so that no padding enters."""
    stack, found = model.main, []
    name = f"{stack.address}blocks.{stack.config.n_layers - 1}.hook_resid_post"
    for text in texts:
        tokens = model.to_tokens(text) if isinstance(text, str) else torch.tensor([list(text)], device=model.device)
        _, cache = model.run_with_cache(tokens, name, return_type=None)
        found.append(stack.finish(cache[name], NO_TAPS)[0].mean(dim=0))
    return torch.stack(found)
