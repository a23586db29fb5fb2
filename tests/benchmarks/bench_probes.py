"""Probes of every layer and head against a scikit-learn loop on the same rows and folds: seconds, and the difference of
accuracies. The loop fits one estimator for each place, label, λ and fold; a sample of its fits is timed. Twice: the
grid alone, and with λ chosen by inner folds, which a sweep does. Seconds are the processor's, so that neighbours on the
machine change little; with --threads 1 one core is compared with one core."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import check, start
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from threadpoolctl import threadpool_limits

from probes.data import ProbeDataset
from probes.fitting.closed import ridge
from probes.fitting.fit import ALPHAS, LinearModels, fit_site, logistic_models
from probes.fitting.moments import as_rows, moments
from probes.fitting.nested import excluded_folds
from probes.fitting.tasks import Columns, task_of
from probes.splits import grouped_folds

N_ROWS, N_FOLDS = 1428, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=60, help="fits of the loop that are timed, spread over the grid")
    parser.add_argument("--synthetic", action="store_true", help="random rows of the same shape in place of SmolLM2's")
    given = parser.parse_args()
    start("probes")
    torch.set_num_threads(given.threads)
    threadpool_limits(given.threads)  # of scikit-learn's BLAS
    resid, heads = _synthetic() if given.synthetic else _activations()
    rows = "random rows" if given.synthetic else "SmolLM2's rows"
    print(f"# {torch.get_num_threads()} threads of torch; {rows}; {N_FOLDS} folds of groups, {len(ALPHAS['ridge'])} λ")
    for what, data, names in (
        (f"{len(resid.activations)} residual sites × {resid.labels.shape[1]} labels", resid, ("ridge", "logistic")),
        (f"{len(heads.places)} heads × {heads.labels.shape[1]} labels", heads, ("ridge", "logistic")),
    ):
        print(f"\n{what}, {len(data)} rows × {data.activations[next(iter(data.activations))].shape[-1]}")
        for name in names:
            _compare(data, name, given.sample)


def _compare(data: ProbeDataset, name: str, sample: int) -> None:
    alphas, rows = ALPHAS[name], np.arange(len(data))
    columns = Columns(tuple(task_of(data.labels[target], rows) for target in data.targets))
    joint = np.unique(np.stack([task.values for task in columns.tasks], 1), axis=0, return_inverse=True)[1]
    folds = grouped_folds(data.table["group"].to_numpy(), joint, n_folds=N_FOLDS)
    grids: dict[str, np.ndarray] = {}
    began = time.process_time()
    for site in data.activations:
        models = _grid_alone(data, site, folds, columns, name)
        grids[site] = _grid(data.activations[site], folds, columns, models, len(alphas))
    ours = time.process_time() - began
    began = time.process_time()
    for site in data.activations:
        fit_site(lambda site=site: data.blocks(site), folds, columns, name, alphas, name=site)
    ours_nested = time.process_time() - began
    n_heads = next(iter(grids.values())).shape[2]
    every = [
        (site, head, i, a, fold)
        for site in grids
        for head in range(n_heads)
        for i in range(len(columns.tasks))
        for a in range(len(alphas))
        for fold in range(N_FOLDS)
    ]
    chosen = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:sample]]
    seconds, differences = 0.0, []
    for site, head, i, a, fold in chosen:
        x = data.activations[site]
        x = np.ascontiguousarray(x if x.ndim == 2 else x[:, head])
        train, y = folds != fold, columns.tasks[i].values
        alpha = alphas[a] * float(((x[train] - x[train].mean(0)) ** 2).sum(0).mean())
        theirs = _peer(name, alpha)
        began = time.process_time()
        theirs.fit(x[train], y[train])
        said = theirs.predict(x[~train])
        seconds += time.process_time() - began
        settled = said if name == "ridge" else _settled(alpha).fit(x[train].astype(float), y[train]).predict(x[~train])
        accuracy = grids[site][fold, a, head, i]
        differences.append((abs((said == y[~train]).mean() - accuracy), abs((settled == y[~train]).mean() - accuracy)))
    loop = seconds / len(chosen) * len(every)
    nested = loop * N_FOLDS  # each outer fold has four inner ones and itself
    print(f"  {name}: the loop of {len(every):,} fits {loop:.0f} s ({len(chosen)} of them timed), ours {ours:.1f} s")
    check("    times as fast, the grid alone", loop / ours, 10, at_least=True)
    print(f"    λ by inner folds: the loop {nested:.0f} s, ours {ours_nested:.1f} s")
    check("    times as fast, with inner folds", nested / ours_nested, 10, at_least=True)
    mean = 100 * np.mean(differences, axis=0)
    check("    mean difference of accuracy", mean[1], 0.5, unit=" points")
    if name == "logistic":
        print(f"    ({mean[0]:.2f} points with scikit-learn's own stopping rule, which ends before the minimum)")
    print(f"    largest difference on one fold {100 * max(one for _, one in differences):.2f} points")


def _grid_alone(data: ProbeDataset, site: str, folds: np.ndarray, columns: Columns, name: str) -> LinearModels:
    """Every λ and fold, without inner folds."""
    outs = [out for out in excluded_folds(N_FOLDS, 1) if out]  # the loop has no fit on all rows either
    if name == "ridge":
        sums = moments(data.blocks(site), folds, columns.y, n_folds=N_FOLDS)
        return LinearModels({out: ridge(sums.without(out), columns, ALPHAS[name]) for out in outs})
    x = as_rows(data.activations[site])
    return logistic_models(x, torch.from_numpy(folds), columns, ALPHAS[name], outs)


def _grid(x: np.ndarray, folds: np.ndarray, columns: Columns, models: Any, n_alphas: int) -> np.ndarray:
    """Accuracy on each fold `[fold alpha head task]`."""
    whole = as_rows(x)
    truth = columns.values
    found = []
    for fold in range(N_FOLDS):
        here = torch.from_numpy(folds == fold)
        said = columns.predicted(models.scores((fold,), whole[here]))
        found.append((said == truth[here]).double().mean(dim=-2).numpy())
    return np.stack(found)


def _peer(name: str, alpha: float) -> ClassifierMixin:
    return RidgeClassifier(alpha=alpha) if name == "ridge" else LogisticRegression(C=1 / alpha, max_iter=1000)


def _settled(alpha: float) -> LogisticRegression:
    return LogisticRegression(C=1 / alpha, solver="newton-cholesky", max_iter=200)


def _labels(tokens: Iterable[str]) -> pd.DataFrame:
    words = [one.strip() for one in tokens]
    return pd.DataFrame(
        {
            "starts a word": [str(one.startswith(" ")) for one in tokens],
            "long": [str(len(one) > 4) for one in words],
            "first half of the alphabet": [str(one[:1].lower() < "n") for one in words],
        },
        dtype=object,
    )


def _activations() -> tuple[ProbeDataset, ProbeDataset]:
    """SmolLM2's residual stream at 31 places, and z of its 270 heads, on natural text."""
    import interp
    from interp.tasks.natural_text import passages

    model = interp.load("smollm2-135m")
    tokens: list[str] = []
    texts: list[int] = []
    parts: dict[str, list[np.ndarray]] = {}
    for number, text in enumerate(passages(None)):
        ids = model.to_tokens(text)[:, :256]
        _, cache = model.run_with_cache(ids)
        keep = slice(1, None)  # the first token is where attention rests: its norm is a hundred times the others'
        tokens += model.to_str_tokens(ids)[1:]
        texts += [number] * (ids.shape[1] - 1)
        for layer in range(model.cfg.n_layers):
            parts.setdefault(f"blocks.{layer}.hook_resid_pre", []).append(cache["resid_pre", layer][0, keep].numpy())
            parts.setdefault(f"blocks.{layer}.attn.hook_z", []).append(cache["z", layer][0, keep].numpy())
        last = model.cfg.n_layers - 1
        parts.setdefault(f"blocks.{last}.hook_resid_post", []).append(cache["resid_post", last][0, keep].numpy())
        if len(tokens) >= N_ROWS:
            break
    n = min(N_ROWS, len(tokens))
    x = {site: np.concatenate(one)[:n] for site, one in parts.items()}
    return _datasets(x, tokens[:n], texts[:n])


def _synthetic() -> tuple[ProbeDataset, ProbeDataset]:
    generator = np.random.default_rng(0)
    tokens = [f"{' ' * int(generator.integers(2))}{'abcnopqrs'[i % 9]}{'x' * (i % 7)}" for i in range(N_ROWS)]
    x = {f"blocks.{i}.hook_resid_pre": generator.normal(size=(N_ROWS, 576)).astype(np.float32) for i in range(31)}
    x |= {f"blocks.{i}.attn.hook_z": generator.normal(size=(N_ROWS, 9, 64)).astype(np.float32) for i in range(30)}
    return _datasets(x, tokens, list(range(N_ROWS)))


def _datasets(x: dict[str, np.ndarray], tokens: list[str], texts: list[int]) -> tuple[ProbeDataset, ProbeDataset]:
    table = pd.DataFrame({"text": texts, "pos": 0, "token": tokens, "group": tokens, "type": tokens})
    resid = {site: one for site, one in x.items() if one.ndim == 2}
    heads = {site: one for site, one in x.items() if one.ndim == 3}
    labels = _labels(tokens)
    return ProbeDataset(resid, table, labels), ProbeDataset(heads, table, labels)


if __name__ == "__main__":
    main()
