"""Syntax: words attend to the word they depend on, or to what depends on them (Clark 2019, Voita 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.heads.base import attention_kind
from interp.heads.syntax_corpus import Halves, halves_of, is_labelled, is_parsed
from interp.heads.syntax_search import CUT, CUTTING
from interp.heads.syntax_text import can_parse
from interp.model.kinds import KINDS_IN_WORDS, AttentionKind
from interp.model.transformer import HookedTransformer

__all__ = ["FINDER", "SyntaxFinder"]


@dataclass(frozen=True)
class SyntaxFinder:
    """A kind known by where words look in sentences whose trees are known.

    Each head is named for the relation and direction in which it lies farthest above two rules, on sentences of their
    own: the best fixed offset, and looking at the same word whoever asks. On other sentences it has to lie `margin`
    above both, surely. Edges are cut to show what they carry; nothing is asked of that.
    """

    name: str
    definition: str
    data: str
    margin: float
    applies_to: frozenset[AttentionKind]
    cause: str = CUT
    score_cutoff: None = None
    effect_cutoff: None = None
    writing: None = None

    def must_apply_to(self, model: HookedTransformer, corpus: Any = None) -> None:
        """Raise `InputError` for a model that this kind is not for, or that cannot read sentences."""
        kind = attention_kind(model)
        if kind not in self.applies_to:
            known = [text for name, text in KINDS_IN_WORDS.items() if name in self.applies_to]
            raise InputError(
                f"{self.name} heads can be found in {' or '.join(known)}; {model.cfg.model_name} is of the "
                f"{KINDS_IN_WORDS[kind]}."
            )
        if model.tokenizer is None and not is_labelled(corpus):
            raise InputError(
                f"{self.name} heads are found on sentences, and {model.cfg.model_name} has no tokenizer. Load it with "
                "tokenizer=, or give labelled token rows (interp.heads.syntax_words.LabelledTokens) as corpus=."
            )

    def suits(self, model: HookedTransformer, corpus: Any) -> bool:
        """Whether "all" kinds should include this one: raw text can be read only where a parser is installed."""
        try:
            self.must_apply_to(model, corpus)
        except InputError:
            return False
        return corpus is None or is_labelled(corpus) or is_parsed(corpus) or can_parse()

    @property
    def stages(self) -> tuple[str, str]:
        """What a search reports its progress as: looking, and cutting edges."""
        return f"attention: {self.data}", CUTTING

    def sentences(
        self, model: HookedTransformer, corpus: Any, *, n: int, seed: int, alpha: float = 0.05, n_kinds: int = 1
    ) -> Halves:
        """The sentences of a search; raises `InputError` where these cannot be read, or are too few."""
        return halves_of(model, corpus, n=n, n_kinds=n_kinds, alpha=alpha, seed=seed)


FINDER = SyntaxFinder(
    name="syntax",
    definition="share of words whose strongest attention falls on their partner in the head's best relation and "
    "direction, the word itself and special tokens left out",
    data="sentences with their dependency trees",
    margin=0.10,
    applies_to=frozenset({"decoder", "encoder"}),
)
