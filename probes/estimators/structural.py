"""The structural probe: whether a linear map turns distances between words into distances in their tree (Hewitt &
Manning 2019)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from interp.errors import InputError
from probes.estimators.base import seen, taken

__all__ = ["StructuralProbe"]

_RATE = 0.05
_LENGTHS = range(5, 51)  # of sentences that Spearman's correlation is averaged over, as in the paper


class StructuralProbe(RegressorMixin, BaseEstimator):
    """A matrix B `[rank feature]` (`coef_`) such that ‖B(x − x')‖² is the number of edges between two words
    (task="distance"), or ‖Bx‖² a word's depth (task="depth"), with the least absolute error.

    `X` has one row per word. For distances `y` is the row of each word's head, −1 for a root: every tree is one
    sentence. For depths `y` are the depths, 0 at the root. Words left out (punctuation) must not be anybody's head.
    Adam on all rows, `steps` steps; `random_state` sets the first B. Pairs of a sentence of n words weigh 1/n².
    """

    def __init__(self, task: Any = "depth", rank: Any = 32, steps: Any = 500, random_state: Any = 0) -> None:
        self.task, self.rank, self.steps, self.random_state = task, rank, steps, random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # a squared norm is never negative; the checks' numbers are
        return tags

    def fit(self, X: Any, y: Any) -> StructuralProbe:
        if self.task not in ("distance", "depth"):
            raise InputError(f'task is {self.task!r}. Choose "distance" or "depth".')
        if self.rank < 1 or self.steps < 1:
            raise InputError(f"rank is {self.rank} and steps {self.steps}. Both must be at least 1.")
        rows, values = taken(self, X, y, y_numeric=True)
        x = torch.tensor(rows)
        # Features of any size: B is found for rows of mean square 1, then scaled back.
        size = float(x.square().mean().sqrt()) * x.shape[1] ** 0.5 or 1.0
        if self.task == "distance":
            left, right, wanted, weight = _pairs(sentences_of(values))
            loss = _distance_loss(x / size, left, right, wanted, weight)
        else:
            wanted = torch.tensor(values, dtype=torch.float64)
            loss = _depth_loss(x / size, wanted)
        self.coef_ = self._minimum(loss, x.shape[1]).numpy() / size
        return self

    def _minimum(self, loss: Any, d: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(self.random_state or 0))
        rank = min(self.rank, d)
        b = torch.randn(rank, d, generator=generator, dtype=torch.float64) / rank**0.5
        with torch.enable_grad():
            b.requires_grad_()
            optimiser = torch.optim.Adam([b], lr=_RATE)
            falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
            for _ in range(self.steps):
                optimiser.zero_grad()
                loss(b).backward()
                optimiser.step()
                falling.step()
        return b.detach()

    def project(self, X: Any) -> NDArray:
        """B x `[row rank]`."""
        check_is_fitted(self)
        return seen(self, X) @ self.coef_.T

    def predict(self, X: Any) -> NDArray:
        """Predicted depths ‖Bx‖² `[row]`; for distances the squared distances of all rows `[row row]`."""
        z = self.project(X)
        return (z**2).sum(axis=1) if self.task == "depth" else _distances(z)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² of depths; for distances the UUAS."""
        return self.evaluate(X, y)["uuas"] if self.task == "distance" else super().score(X, y, sample_weight)

    def evaluate(self, X: Any, y: Any, sentences: Sequence[Sequence[int]] | None = None) -> dict[str, float]:
        """`uuas`: share of the trees' edges (without direction) that are in the minimum spanning trees of predicted
        distances. `spearman`: rank correlation of predicted and true distances from each word, or of depths; averaged
        over words, then sentences of one length, then lengths 5 to 50. For depths also `root`: share of sentences
        whose shallowest word is the root; `sentences` are then needed, as rows."""
        z, values = self.project(X), np.asarray(y)
        if self.task == "distance":
            return _of_trees(z, sentences_of(values))
        if sentences is None:
            raise InputError("Depths do not say which words are one sentence. Give sentences=[[0, 1, 2], [3, 4], …].")
        return _of_depths((z**2).sum(axis=1), values, sentences)


Sentence = tuple[NDArray, NDArray]  # rows, and distances in the tree [word word]


def sentences_of(heads: NDArray) -> list[Sentence]:
    """Trees by their rows and distances. Raises `InputError` for heads that are no trees."""
    n, rows = len(heads), np.arange(len(heads))
    wrong = np.flatnonzero((heads != np.round(heads)) | (heads < -1) | (heads >= n) | (heads == rows))
    if len(wrong):
        raise InputError(
            f"Row {wrong[0]} has head {heads[wrong[0]]}. Give the row of another word, from 0 to "
            f"{n - 1}, or −1 for a root."
        )
    children = np.flatnonzero(heads >= 0)
    graph = coo_array((np.ones(len(children)), (children, heads[children].astype(int))), shape=(n, n)).tocsr()
    count, of = connected_components(graph, directed=False)
    found = []
    for which in range(count):
        own = np.flatnonzero(of == which)
        if (heads[own] < 0).sum() != 1:
            raise InputError(f"The words around row {own[0]} are no tree: their heads run in a circle.")
        distances = shortest_path(graph[own][:, own], directed=False, unweighted=True)
        found.append((own, distances))
    return found


def _pairs(sentences: list[Sentence]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pairs of words of a sentence: rows, distance, weight."""
    parts: list[list[NDArray]] = [[], [], [], []]
    for rows, distances in sentences:
        i, j = np.triu_indices(len(rows), 1)
        weight = np.full(len(i), 2 / len(rows) ** 2 / len(sentences))
        for part, one in zip(parts, (rows[i], rows[j], distances[i, j], weight), strict=True):
            part.append(one)
    if not sum(map(len, parts[0])):
        raise InputError("No tree has more than one word, so there are no distances to fit.")
    left, right, wanted, weights = (torch.from_numpy(np.concatenate(part)) for part in parts)
    return left, right, wanted, weights


def _distance_loss(x: Tensor, left: Tensor, right: Tensor, wanted: Tensor, weight: Tensor) -> Any:
    def loss(b: Tensor) -> Tensor:
        z = x @ b.mT
        return (weight * ((z[left] - z[right]).square().sum(dim=1) - wanted).abs()).sum()

    return loss


def _depth_loss(x: Tensor, wanted: Tensor) -> Any:
    def loss(b: Tensor) -> Tensor:
        return ((x @ b.mT).square().sum(dim=1) - wanted).abs().mean()

    return loss


def _distances(z: NDArray) -> NDArray:
    square = (z**2).sum(axis=1)
    return np.maximum(square[:, None] + square - 2 * z @ z.T, 0)


def _of_trees(z: NDArray, sentences: list[Sentence]) -> dict[str, float]:
    right = edges = 0
    by_length: dict[int, list[float]] = defaultdict(list)
    for rows, truth in sentences:
        if len(rows) < 2:
            continue
        guessed = _distances(z[rows])
        tree = minimum_spanning_tree(guessed + 1e-9).toarray() > 0  # without it a distance of 0 would be no edge
        right += int(((tree | tree.T) & (truth == 1)).sum()) // 2
        edges += len(rows) - 1
        if len(rows) in _LENGTHS:
            by_length[len(rows)].append(float(np.mean([_rank(a, b) for a, b in zip(guessed, truth, strict=True)])))
    return {"uuas": right / edges if edges else float("nan"), "spearman": _macro(by_length)}


def _of_depths(guessed: NDArray, truth: NDArray, sentences: Sequence[Sequence[int]]) -> dict[str, float]:
    by_length: dict[int, list[float]] = defaultdict(list)
    roots = []
    for one in sentences:
        rows = np.asarray(one)
        roots.append(truth[rows][guessed[rows].argmin()] == truth[rows].min())
        if len(rows) in _LENGTHS:
            by_length[len(rows)].append(_rank(guessed[rows], truth[rows]))
    return {"root": float(np.mean(roots)), "spearman": _macro(by_length)}


def _rank(a: NDArray, b: NDArray) -> float:
    if (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    return float(spearmanr(a, b).statistic)  # type: ignore[attr-defined]


def _macro(by_length: dict[int, list[float]]) -> float:
    return float(np.mean([np.mean(one) for one in by_length.values()])) if by_length else float("nan")
