"""Facts and coreference, with a first layer that sees three tokens only. What decides the answer stands further from
the end than that, so attention in layer 1 has to bring it there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.dynamics.base import Examples, Optimizer, Recipe, drawn
from interp.model.config import ModelConfig

__all__ = ["RECIPES", "FactSentences", "PronounSentences", "windowed"]

WINDOW = 3  # tokens that layer 0 sees, the query's own included
_FILLERS = 4
BOS = 0


@dataclass(frozen=True)
class FactSentences:
    """BOS, relation, filler, subject, four fillers, value: what a table says of subject and relation. The table is part
    of the data, drawn from `world` and not from the training's seed. Group `fact`: the value.

    Every fact is trained on, and nothing is held out: a fact that was never seen cannot be known.
    """

    n_subjects: int = 48
    n_relations: int = 4
    n_values: int = 12  # of each relation
    world: int = 0

    @property
    def d_vocab(self) -> int:
        return 1 + _FILLERS + 1 + self.n_subjects + self.n_relations + self.n_relations * self.n_values

    @property
    def length(self) -> int:
        """Tokens of a row; the last is the answer."""
        return 9

    @property
    def table(self) -> Int[Tensor, "subject relation"]:
        """The token that answers each question."""
        generator = torch.Generator().manual_seed(self.world)
        value = drawn(0, self.n_values, (self.n_subjects, self.n_relations), generator)
        first = self.d_vocab - self.n_relations * self.n_values
        return first + self.n_values * torch.arange(self.n_relations) + value

    def rows(self, subject: Int[Tensor, " n"], relation: Int[Tensor, " n"]) -> Int[Tensor, "n pos"]:
        """The sentence of each pair of subject and relation (numbers from 0), its answer at the end."""
        fill = [torch.full_like(subject, 1 + i) for i in range(_FILLERS + 1)]
        start = torch.full_like(subject, BOS)
        subjects = 2 + _FILLERS
        relations = subjects + self.n_subjects
        parts = [start, relations + relation, fill[0], subjects + subject, *fill[1:], self.table[subject, relation]]
        return torch.stack(parts, dim=1)

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        subject = drawn(0, self.n_subjects, (n,), generator)
        relation = drawn(0, self.n_relations, (n,), generator)
        return _last("fact", self.rows(subject, relation))


@dataclass(frozen=True)
class PronounSentences:
    """BOS, name, verb, name, filler, pronoun, two fillers, name: the one that the pronoun's kind agrees with. One name
    is of either kind, in either order. Group `antecedent`: the last name. Every fifth pair of names is held out."""

    n_names: int = 24  # of either kind
    n_verbs: int = 8

    @property
    def d_vocab(self) -> int:
        return 1 + _FILLERS + 2 + self.n_verbs + 2 * self.n_names

    @property
    def length(self) -> int:
        """Tokens of a row; the last is the answer."""
        return 9

    def rows(
        self,
        names: Int[Tensor, "n kind"],
        verb: Int[Tensor, " n"],
        second_first: Bool[Tensor, " n"],
        pronoun: Int[Tensor, " n"],
    ) -> Int[Tensor, "n pos"]:
        """Sentences: a name of each kind (numbers from 0), which of them comes first, the pronoun's kind (0 or 1)."""
        pronouns = 1 + _FILLERS
        verbs = pronouns + 2
        name = verbs + self.n_verbs + torch.tensor([0, self.n_names]) + names
        one, two = (torch.where(second_first, name[:, 1 - i], name[:, i]) for i in range(2))
        answer = name.gather(1, pronoun[:, None])[:, 0]
        fill = [torch.full_like(verb, 1 + i) for i in range(3)]
        start = torch.full_like(verb, BOS)
        parts = [start, one, verbs + verb, two, fill[0], pronouns + pronoun, *fill[1:], answer]
        return torch.stack(parts, dim=1)

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        pairs = torch.cartesian_prod(torch.arange(self.n_names), torch.arange(self.n_names))
        kept = pairs[((7 * pairs[:, 0] + 3 * pairs[:, 1]) % 5 == 0) == held_out]
        names = kept[drawn(0, len(kept), (n,), generator)]
        verb = drawn(0, self.n_verbs, (n,), generator)
        second_first, pronoun = drawn(0, 2, (n,), generator).bool(), drawn(0, 2, (n,), generator)
        return _last("antecedent", self.rows(names, verb, second_first, pronoun))


def windowed(d_vocab: int, length: int, *, d_model: int = 64, n_heads: int = 4) -> ModelConfig:
    """Two layers with MLPs over learned positions; the first one's heads see `WINDOW` tokens."""
    config = ModelConfig.decoder_only(
        n_layers=2,
        d_model=d_model,
        n_heads=n_heads,
        d_vocab=d_vocab,
        n_ctx=length - 1,
        act_fn="gelu",
        gated_mlp=False,
        rotary=None,
    )
    stack = config.decoder
    assert stack is not None
    near = dataclasses.replace(stack.blocks[0], attn=dataclasses.replace(stack.blocks[0].attn, window=WINDOW))
    return dataclasses.replace(config, decoder=dataclasses.replace(stack, blocks=(near, stack.blocks[1])))


def _last(group: str, tokens: Int[Tensor, "n pos"]) -> Examples:
    scored = torch.zeros_like(tokens, dtype=torch.bool)
    scored[:, -1] = True
    return Examples(tokens, {group: scored})


_FACTS, _NAMES = FactSentences(), PronounSentences()
_OPTIMIZER = Optimizer(batch=128, decay=True)
RECIPES = (
    Recipe(
        "facts",
        windowed(_FACTS.d_vocab, _FACTS.length),
        _FACTS,
        1_500,
        "Two layers with MLPs; layer 0 sees three tokens. What the subject says reaches the end through attention in "
        "layer 1; layer-0 attention at the end cannot see the subject.",
        _OPTIMIZER,
    ),
    Recipe(
        "coreference",
        windowed(_NAMES.d_vocab, _NAMES.length),
        _NAMES,
        1_500,
        "Two layers with MLPs; layer 0 sees three tokens. The name reaches the end through attention in layer 1; "
        "layer-0 attention at the end sees the pronoun, and no name.",
        _OPTIMIZER,
    ),
)
