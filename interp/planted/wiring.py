"""Weights set by hand, written as a circuit diagram: named subspaces, and heads and neurons that move between them.

The residual stream is a direct sum of named subspaces (`tok`, `pos`, `prev`, …), each with one coordinate per feature.
A head *matches* features of the query with features of the key, and *moves* features of the key into a subspace of the
query's position; a neuron reads some features and writes others. `lay.build_model` turns the diagram into weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.sites import Head

__all__ = ["SHARP", "UNEMBED", "Match", "Move", "Neurons", "Wiring", "identity"]

SHARP = 30.0  # the score of a match: the softmax leaves e⁻³⁰ to keys without one, e⁻¹⁵ to one that is half as good
UNEMBED = 10.0  # the logit of a token whose coordinate of the output subspace is 1


@dataclass(frozen=True)
class Match:
    """Adds `score × query features · table · key features` to a head's scores; the table is the identity if left
    out."""

    query: str
    key: str
    score: float = SHARP
    table: Float[Tensor, "query_width key_width"] | None = None


@dataclass(frozen=True)
class Move:
    """Adds `gain × features · table` of the attended tokens to the subspace `write`."""

    read: str
    write: str
    gain: float = 1.0
    table: Float[Tensor, "read_width write_width"] | None = None


@dataclass(frozen=True)
class Neurons:
    """relu(features of `read` · into + bias) · out, added to `write`: the neurons of one layer side by side."""

    read: str
    write: str
    into: Float[Tensor, "read_width neuron"]
    out: Float[Tensor, "neuron write_width"]
    bias: float = 0.0

    @property
    def n(self) -> int:
        return self.into.shape[1]


def identity(width: int) -> Float[Tensor, "width width"]:
    return torch.eye(width, dtype=torch.float64)


@dataclass
class Wiring:
    """A circuit diagram. `spaces`: subspace -> how many coordinates it has. With fewer `n_kv_heads` than `n_heads`,
    query heads of one group have to match the same keys and move the same features, each to a place of its own."""

    spaces: Mapping[str, int]
    n_tokens: int
    n_ctx: int
    n_layers: int
    n_heads: int = 4
    n_kv_heads: int = 4
    tokens: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Tensor] = field(default_factory=dict)
    heads: dict[Head, tuple[tuple[Match, ...], tuple[Move, ...]]] = field(default_factory=dict)
    neurons: dict[int, list[Neurons]] = field(default_factory=dict)
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)

    def embed(self, space: str, table: Tensor | None = None, *, silent: int | None = None) -> None:
        """What each token says of itself, `[token, width]`; the identity if left out. A `silent` token says nothing:
        a head that rests on it writes nothing."""
        table = self._table(space, table, self.n_tokens).clone()
        if silent is not None:
            table[silent] = 0.0
        self.tokens[space] = table

    def flag(self, space: str, tokens: Sequence[int]) -> None:
        """A subspace of one coordinate that is 1 on some tokens."""
        table = torch.zeros(self.n_tokens, 1, dtype=torch.float64)
        table[list(tokens)] = 1.0
        self.embed(space, table)

    def place(self, space: str, table: Tensor | None = None) -> None:
        """What each position says of itself, `[pos, width]`."""
        self.places[space] = self._table(space, table, self.n_ctx)

    def head(self, address: str, matches: Sequence[Match], moves: Sequence[Move]) -> None:
        """Set one head. Heads that are not set write nothing."""
        for one in matches:
            self._known(one.query, one.key)
        for one in moves:
            self._known(one.read, one.write)
        head = Head.parse(address)
        if head.layer >= self.n_layers or head.head >= self.n_heads:
            raise InputError(f"{address} is not there: {self.n_layers} layers of {self.n_heads} heads.")
        self.heads[head] = tuple(matches), tuple(moves)

    def layer(self, layer: int, *neurons: Neurons) -> None:
        """Set the MLP of one layer."""
        for one in neurons:
            self._known(one.read, one.write)
        self.neurons.setdefault(layer, []).extend(neurons)

    def unembed(self, space: str, table: Tensor | None = None) -> None:
        """Which tokens a subspace speaks for, `[width, token]`."""
        self._known(space)
        table = identity(self.spaces[space]) if table is None else table
        self.outputs.append((space, UNEMBED * table))

    @property
    def width(self) -> int:
        return sum(self.spaces.values())

    @property
    def d_head(self) -> int:
        """The widest head's number of channels."""
        scores = [sum(self.spaces[one.key] for one in matches) for matches, _ in self.heads.values()]
        values = [sum(self.spaces[one.read] for one in moves) for _, moves in self.heads.values()]
        return max([1, *scores, *values])

    @property
    def d_mlp(self) -> int:
        """The widest layer's number of neurons; 0 where the model has no MLP."""
        return max((sum(one.n for one in some) for some in self.neurons.values()), default=0)

    def span(self, space: str) -> slice:
        """Where a subspace lies among the coordinates."""
        self._known(space)
        names = list(self.spaces)
        start = sum(self.spaces[name] for name in names[: names.index(space)])
        return slice(start, start + self.spaces[space])

    def _table(self, space: str, table: Tensor | None, n: int) -> Tensor:
        self._known(space)
        table = identity(self.spaces[space]) if table is None else table.double()
        if table.shape != (n, self.spaces[space]):
            raise InputError(f"{space} takes a table of {n} × {self.spaces[space]}; this one is {tuple(table.shape)}.")
        return table

    def _known(self, *spaces: str) -> None:
        for space in spaces:
            if space not in self.spaces:
                raise InputError(f"There is no subspace {space!r}. Known are {', '.join(self.spaces)}.")
