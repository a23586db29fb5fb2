"""Facts that stand in the weights and facts that stand in the context: a model that has to learn both, and the rows in
which the two contradict each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.dynamics.base import Examples, Optimizer, Recipe, drawn
from interp.dynamics.knowledge import windowed
from interp.errors import InputError

__all__ = ["RECIPES", "Conflicts", "StatedFacts"]

BOS = 0


@dataclass(frozen=True)
class Conflicts:
    """Prompts that state another value of a subject than the table's, and both tokens. `unstated`: the same prompts
    with the statement about another subject, so that nothing contradicts the table."""

    tokens: Int[Tensor, "n pos"]
    unstated: Int[Tensor, "n pos"]
    stated: Int[Tensor, " n"]
    learned: Int[Tensor, " n"]


@dataclass(frozen=True)
class StatedFacts:
    """BOS, subject, value, subject, value, question, subject, value: two statements, and an answer.

    Residents have one value each, in a table drawn from `world`. Strangers have another one in each row, so only a
    statement tells it. A row asks for a stranger that it states (share `strangers`; group `context`), for a resident
    that it states as the table has it (share `agreed`; group `either`), or for a resident that it does not state (group
    `weights`). The other statements are of others, in random order; no row of training contradicts the table.
    """

    n_residents: int = 32
    n_strangers: int = 32
    n_values: int = 24
    strangers: float = 0.4
    agreed: float = 0.1
    world: int = 0

    def __post_init__(self) -> None:
        if min(self.n_residents, self.n_strangers, self.n_values) < 4:
            raise InputError(f"{self} has fewer than 4 of a kind. Give at least 4 residents, strangers and values.")
        if min(self.strangers, self.agreed) < 0 or self.strangers + self.agreed > 1:
            raise InputError(f"strangers={self.strangers} and agreed={self.agreed} are no shares of one whole.")

    @property
    def d_vocab(self) -> int:
        return 2 + self.n_residents + self.n_strangers + self.n_values

    @property
    def length(self) -> int:
        """Tokens of a row; the last is the answer."""
        return 8

    @property
    def table(self) -> Int[Tensor, " resident"]:
        """The value (a number from 0) of each resident."""
        return drawn(0, self.n_values, (self.n_residents,), torch.Generator().manual_seed(self.world))

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        kind = torch.rand(n, generator=generator)
        asks_stranger = kind < self.strangers
        states = kind < self.strangers + self.agreed
        resident = drawn(0, self.n_residents, (n,), generator)
        stranger = self.n_residents + drawn(0, self.n_strangers, (n,), generator)
        asked = torch.where(asks_stranger, stranger, resident)
        invented = drawn(0, self.n_values, (n,), generator)
        answer = torch.where(asks_stranger, invented, self.table[resident])
        others, values = self._others(asked, generator)
        subjects, values = others.clone(), values.clone()
        subjects[:, 0] = torch.where(states, asked, others[:, 0])
        values[:, 0] = torch.where(states, answer, values[:, 0])
        tokens = self._rows(subjects, values, asked, drawn(0, 2, (n,), generator).bool())
        tokens = torch.cat([tokens, self._value(answer)[:, None]], dim=1)
        scored = {"context": asks_stranger, "either": states & ~asks_stranger, "weights": ~states}
        last = torch.arange(self.length) == self.length - 1
        return Examples(tokens, {name: which[:, None] & last for name, which in scored.items()})

    def conflicts(self, n: int, generator: torch.Generator) -> Conflicts:
        """Rows that training never has: a resident is asked for, and a statement gives it another value."""
        resident = drawn(0, self.n_residents, (n,), generator)
        learned = self.table[resident]
        stated = (learned + drawn(1, self.n_values, (n,), generator)) % self.n_values
        others, values = self._others(resident, generator)
        swap = drawn(0, 2, (n,), generator).bool()
        values[:, 0] = stated
        subjects = others.clone()
        subjects[:, 0] = resident
        tokens, unstated = (self._rows(one, values, resident, swap) for one in (subjects, others))
        return Conflicts(tokens, unstated, self._value(stated), self._value(learned))

    def _others(
        self, asked: Int[Tensor, " n"], generator: torch.Generator
    ) -> tuple[Int[Tensor, "n two"], Int[Tensor, "n two"]]:
        """Two subjects that are not asked for, and values of theirs: the table's, or a stranger's invented one."""
        n, total = len(asked), self.n_residents + self.n_strangers
        steps = 1 + torch.rand(n, total - 1, generator=generator).argsort(dim=1)[:, :2]
        subjects = (asked[:, None] + steps) % total
        invented = drawn(0, self.n_values, (n, 2), generator)
        known = self.table[subjects.clamp(max=self.n_residents - 1)]
        return subjects, torch.where(subjects < self.n_residents, known, invented)

    def _rows(
        self,
        subjects: Int[Tensor, "n two"],
        values: Int[Tensor, "n two"],
        asked: Int[Tensor, " n"],
        second_first: Bool[Tensor, " n"],
    ) -> Int[Tensor, "n pos"]:
        """Prompts, without the answer."""
        order = torch.stack([second_first, ~second_first], dim=1).long()
        named, given = 2 + subjects.gather(1, order), self._value(values.gather(1, order))
        start, question = torch.full_like(asked, BOS), torch.ones_like(asked)
        return torch.stack([start, named[:, 0], given[:, 0], named[:, 1], given[:, 1], question, 2 + asked], dim=1)

    def _value(self, number: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        return 2 + self.n_residents + self.n_strangers + number


_DATA = StatedFacts()
RECIPES = (
    Recipe(
        "facts-in-context",
        windowed(_DATA.d_vocab, _DATA.length),
        _DATA,
        2_500,
        "Two layers with MLPs; layer 0 sees three tokens. What a statement says reaches the end through attention in "
        "layer 1, where layer 0 has moved the subject onto its value; what the table says is made of the last token.",
        Optimizer(batch=128, decay=True),
    ),
)
