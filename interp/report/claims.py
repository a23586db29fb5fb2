"""All claims, and which of them a model is asked."""

from __future__ import annotations

from collections.abc import Sequence

from interp.heads.base import finders
from interp.report import agreement, conflict, coreference, facts, ioi, lexical, null, patterns, syntax
from interp.report.claim import Claim

__all__ = ["EVERY", "NAMED", "claims_for"]

_ALL = (
    *patterns.CLAIMS,
    *ioi.CLAIMS,
    *coreference.CLAIMS,
    *facts.CLAIMS,
    *agreement.CLAIMS,
    *conflict.CLAIMS,
    *lexical.CLAIMS,
    *syntax.CLAIMS,
    *null.CLAIMS,
)
EVERY: tuple[Claim, ...] = tuple(claim for claim in _ALL if claim.kind in finders())
"""What is asked of any model."""
NAMED: dict[str, tuple[Claim, ...]] = {
    "smollm2-135m": (
        *patterns.NAMED,
        *ioi.NAMED,
        *coreference.NAMED,
        *facts.NAMED,
        *agreement.NAMED,
        *conflict.NAMED,
    ),
    "minilm-l6": (*coreference.ENCODER, *syntax.ENCODER),
}
"""What is asked besides, of the heads of one model: by how its name begins."""


def claims_for(model_name: str, kinds: Sequence[str]) -> list[Claim]:
    """The claims on some kinds, those on named heads of this model behind the general ones of the kind."""
    named = next((claims for name, claims in NAMED.items() if model_name.lower().startswith(name)), ())
    return [claim for kind in kinds for claim in (*EVERY, *named) if claim.kind == kind]
