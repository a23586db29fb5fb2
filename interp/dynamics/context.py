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
    """BOS, `n_stated` statements (subject, value), then `n_asked` questions (two question marks, subject, value).

    Residents have one value each, in a table drawn from `world`. Strangers have another one in each row, so only a
    statement tells it. Subjects are stated and asked for once at the most. A question is of a stated subject (share
    `from_stated`) or of a resident that the row does not state. A stated resident has another value than the table's
    in the share `overruled`, and the answer is what is stated.

    Groups: `weights` (a resident, not stated), `either` (stated as in the table), `overruled`, `context` (a stranger).
    """

    n_residents: int = 32
    n_strangers: int = 32
    n_values: int = 24
    n_stated: int = 4
    n_asked: int = 4
    from_stated: float = 0.75
    overruled: float = 0.25
    world: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_asked <= self.n_stated or self.n_residents < self.n_stated + self.n_asked:
            raise InputError(
                f"StatedFacts has n_residents={self.n_residents}, n_stated={self.n_stated} and n_asked={self.n_asked}. "
                "Ask no more than is stated, and give more residents than both together."
            )
        if min(self.n_strangers, self.n_values) < 2 or not (0 <= self.overruled <= 1 and 0 <= self.from_stated <= 1):
            raise InputError(
                f"StatedFacts has n_strangers={self.n_strangers}, n_values={self.n_values}, overruled={self.overruled} "
                f"and from_stated={self.from_stated}. Give two or more of a kind, and shares from 0 to 1."
            )

    @property
    def d_vocab(self) -> int:
        return 2 + self.n_residents + self.n_strangers + self.n_values

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return 1 + 2 * self.n_stated + 4 * self.n_asked

    @property
    def table(self) -> Int[Tensor, " resident"]:
        """The value (a number from 0) of each resident."""
        return drawn(0, self.n_values, (self.n_residents,), torch.Generator().manual_seed(self.world))

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        stated, others = self._subjects(n, generator)
        other = drawn(1, self.n_values, stated.shape, generator)
        overruled = torch.rand(stated.shape, generator=generator) < self.overruled
        values = self._known(stated, other)
        values = torch.where(overruled & self._resident(stated), (values + other) % self.n_values, values)
        order = torch.rand(stated.shape, generator=generator).argsort(dim=1)[:, : self.n_asked]
        of_stated = torch.rand(order.shape, generator=generator) < self.from_stated
        asked = torch.where(of_stated, stated.gather(1, order), others[:, : self.n_asked])
        answers = torch.where(of_stated, values.gather(1, order), self._known(asked, torch.zeros_like(asked)))
        resident = self._resident(asked)
        against = of_stated & resident & (answers != self._known(asked, answers))
        kinds = {
            "weights": ~of_stated,
            "either": of_stated & resident & ~against,
            "overruled": against,
            "context": ~resident,
        }
        tokens = torch.cat([self._statements(stated, values), self._questions(asked, answers)], dim=1)
        place = 1 + 2 * self.n_stated + 4 * torch.arange(self.n_asked) + 3
        scored = {name: torch.zeros_like(tokens, dtype=torch.bool) for name in kinds}
        for name, which in kinds.items():
            scored[name][:, place] = which
        return Examples(tokens, scored)

    def conflicts(self, n: int, generator: torch.Generator) -> Conflicts:
        """One question of each row: of a resident that is stated with another value than the table's."""
        subjects, others = self._subjects(n, generator)
        asked = others[:, 0]
        learned = self.table[asked]
        stated = (learned + drawn(1, self.n_values, (n,), generator)) % self.n_values
        values = self._known(subjects, drawn(0, self.n_values, subjects.shape, generator))
        at = torch.nn.functional.one_hot(drawn(0, self.n_stated, (n,), generator), self.n_stated).bool()
        told = torch.where(at, asked[:, None], subjects), torch.where(at, stated[:, None], values)
        question = self._questions(asked[:, None], learned[:, None])[:, :3]
        tokens, unstated = (
            torch.cat([self._statements(*pair), question], dim=1) for pair in (told, (subjects, values))
        )
        return Conflicts(tokens, unstated, self._value(stated), self._value(learned))

    def _subjects(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n stated"], Int[Tensor, "n other"]]:
        """Those that a row states, of either kind, and residents that it does not."""
        total = self.n_residents + self.n_strangers
        stated = torch.rand(n, total, generator=generator).argsort(dim=1)[:, : self.n_stated]
        rank = torch.rand(n, total, generator=generator).scatter(1, stated, 2.0)
        rank[:, self.n_residents :] = 3.0
        return stated, rank.argsort(dim=1)[:, : self.n_residents - self.n_stated]

    def _resident(self, subjects: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        return subjects < self.n_residents

    def _known(self, subjects: Int[Tensor, "*shape"], invented: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Values of residents by the table, of strangers as invented."""
        table = self.table[subjects.clamp(max=self.n_residents - 1)]
        return torch.where(self._resident(subjects), table, invented)

    def _statements(self, subjects: Int[Tensor, "n stated"], values: Int[Tensor, "n stated"]) -> Int[Tensor, "n pos"]:
        pairs = torch.stack([2 + subjects, self._value(values)], dim=2).flatten(1)
        return torch.nn.functional.pad(pairs, (1, 0), value=BOS)

    def _questions(self, subjects: Int[Tensor, "n asked"], values: Int[Tensor, "n asked"]) -> Int[Tensor, "n pos"]:
        mark = torch.ones_like(subjects)  # two of them: then layer 0 sees no value from the subject
        return torch.stack([mark, mark, 2 + subjects, self._value(values)], dim=2).flatten(1)

    def _value(self, number: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        return 2 + self.n_residents + self.n_strangers + number


_DATA = StatedFacts()
RECIPES = (
    Recipe(
        "facts-in-context",
        windowed(_DATA.d_vocab, _DATA.length),
        _DATA,
        2_000,
        "Two layers with MLPs; layer 0 sees three tokens. What the table says is made of the last token; what a "
        "statement says can reach the end through attention in layer 1 alone.",
        Optimizer(batch=128),
    ),
)
