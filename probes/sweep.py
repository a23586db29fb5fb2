"""Probes at every place for every label: one call, one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from interp.errors import InputError
from interp.files import write_atomically
from probes.data import Place, ProbeDataset
from probes.description import online_code, v_information
from probes.fitting.fit import ALPHAS, CLOSED
from probes.fitting.tasks import Task
from probes.measure import Parts, measure_site
from probes.plan import METHOD, RowSet, Settings, plan
from probes.results import ProbeResults
from probes.rows import MARGIN, judged, target_rows
from probes.splits import leak_notes

__all__ = ["sweep"]

Progress = Callable[[str, int, int], None]
_CHEAP = 12_000_000  # rows × features of all places, up to which every place is described in bits


def sweep(
    dataset: ProbeDataset,
    estimator: str = "ridge",
    *,
    targets: str | Sequence[str] | None = None,
    alphas: Sequence[float] | None = None,
    rigor: str = "quick",
    n_folds: int = 5,
    seed: int = 0,
    alpha: float = 0.05,
    n_controls: int = 3,
    n_permutations: int = 200,
    progress: Progress | None = None,
    keep: str | Path | None = None,
) -> ProbeResults:
    """Fit probes at every place of the data and test them on groups that they were not fitted on.

    `estimator` is "ridge", "lda", "difference" (of means), "logistic" or "mlp". `alphas` are the λ to choose from
    inside the training groups, as shares: the penalty on ‖w‖² is λ · n · mean variance of a feature of the training
    rows. Every score comes with its bootstrap interval over groups, the commonest class, the embedding layer and a
    randomly initialised model where the data have them, and `n_controls` control tasks (one for "logistic" and "mlp").
    `rigor="full"` adds p by the best place under `n_permutations` permutations of labels, code length and
    V-information. `keep` is a folder: sites that were finished in it are taken up again. `progress(stage, done,
    total)`.

    Raises `InputError` for labels that cannot be tested on held-out groups (one class, a class of one group, fewer
    groups than folds) and for activations that are not finite, naming place and row.
    """
    if not isinstance(dataset, ProbeDataset):
        raise InputError(f"Probes are fitted on what probes.dataset(…) gives, not on a {type(dataset).__name__}.")
    more = {"rigor": rigor, "n_folds": n_folds, "seed": seed, "alpha": alpha}
    settings = Settings.of(estimator, alphas, **more, n_controls=n_controls, n_permutations=n_permutations)
    asked = [targets] if isinstance(targets, str) else list(dataset.targets if targets is None else targets)
    if not asked:
        raise InputError(f"No target is asked for. The data have {', '.join(dataset.targets)}.")
    sets = plan(dataset, list(dict.fromkeys(asked)), settings)
    report = progress or (lambda stage, done, total: None)
    kept = _Kept.of(keep, dataset, sets, settings)
    embedding = _embedding(dataset)
    baseline_only = set(dataset.about.get("baseline_only", ()))
    sites = _measured(dataset, sets, settings, kept, report, bare=baseline_only, stage="sites")
    twin: dict[str, Parts] = {}
    if dataset.random_init is not None:
        everything = set(dataset.random_init.activations)
        twin = _measured(dataset.random_init, sets, settings, kept, report, bare=everything, stage="random_init")
    places = [place for place in dataset.places if place.site not in baseline_only]
    widths = {place: dataset.width(place) for place in places}
    frames = {
        target: target_rows(target, one, places, widths, sites, twin, embedding, settings)
        for one in sets
        for target in one.targets
    }
    if rigor == "full":
        _describe(dataset, sets, frames, settings, kept, report)
    frame = judged(pd.concat([frames[target] for target in dict.fromkeys(asked)], ignore_index=True), settings)
    about = _about(dataset, sets, settings, embedding)
    return ProbeResults.of(frame, sites, about, dataset)


def _measured(
    dataset: ProbeDataset,
    sets: list[RowSet],
    settings: Settings,
    kept: _Kept,
    report: Progress,
    *,
    bare: set[str],
    stage: str,
) -> dict[str, Parts]:
    found = {}
    report(stage, 0, len(dataset.activations))
    for done, site in enumerate(dataset.activations, start=1):
        key = kept.key(dataset, site, stage)
        parts = kept.get(key)
        if parts is None:
            parts = measure_site(dataset, site, sets, settings, bare=site in bare)
            kept.put(key, parts)
        found[site] = parts
        report(stage, done, len(dataset.activations))
    return found


def _describe(
    dataset: ProbeDataset,
    sets: list[RowSet],
    frames: dict[str, pd.DataFrame],
    settings: Settings,
    kept: _Kept,
    report: Progress,
) -> None:
    """Code length and V-information, of every place if that is cheap, else of each target's best and its neighbours."""
    alphas = settings.alphas if settings.estimator == "logistic" else ALPHAS["logistic"]
    of_target = {target: one for one in sets for target in one.targets}
    wanted = [
        (target, i)
        for target, frame in frames.items()
        if of_target[target].tasks[of_target[target].targets.index(target)].classes
        for i in _described(frame, len(of_target[target].rows))
    ]
    for done, (target, i) in enumerate(wanted):
        report("describe", done, len(wanted))
        one, frame = of_target[target], frames[target]
        task = one.tasks[one.targets.index(target)]
        head = frame["head"].iloc[i]
        place = Place(str(frame["site"].iloc[i]), None if pd.isna(head) else int(head))
        key = kept.key(dataset, place.site, f"bits {target} {place.head}")
        bits = kept.get(key)
        if bits is None:
            bits = {"bits": _bits(dataset, place, one, task, alphas, settings.seed)}
            kept.put(key, bits)
        frame.loc[frame.index[i], ["mdl", "mdl_uniform", "compression", "v_information"]] = bits["bits"]
    report("describe", len(wanted), len(wanted))


def _bits(dataset: ProbeDataset, place: Place, one: RowSet, task: Task, alphas: Sequence[float], seed: int) -> NDArray:
    """Code length, that without the rows, their ratio, and V-information; NaN for what has too few groups."""
    x = torch.from_numpy(np.array(dataset.rows(place, one.rows), dtype=np.float64))
    try:
        code = online_code(x, task, one.groups, alphas, seed=seed)
        found = [code.bits, code.uniform, code.compression]
    except InputError:
        found = [float("nan")] * 3
    return np.array([*found, v_information(x, task, one.of, alphas)[0]])


def _described(frame: pd.DataFrame, n_rows: int) -> Iterable[int]:
    if int(np.sum(frame["width"].to_numpy())) * n_rows <= _CHEAP:
        return range(len(frame))
    best = int(np.argmax(frame["score"].to_numpy()))
    return range(max(0, best - 1), min(len(frame), best + 2))


def _embedding(dataset: ProbeDataset) -> str | None:
    """The site that serves as the embedding layer: the one the data name, else what enters the first block."""
    named = dataset.about.get("embedding")
    if named in dataset.activations:
        return str(named)
    first = [place.site for place in dataset.places if place.head is None and str(place) in ("resid_pre.0", "embed")]
    return first[-1] if first else None


def _about(dataset: ProbeDataset, sets: list[RowSet], settings: Settings, embedding: str | None) -> dict[str, Any]:
    n = f"{settings.n_folds} folds"
    units = {target: unit for one in sets for target, (unit, _) in zip(one.targets, one.units, strict=True)}
    full = settings.rigor == "full"
    said: dict[str, Any] = {
        **{name: dataset.about[name] for name in ("model", "labels", "definition", "group") if name in dataset.about},
        "estimator": settings.estimator,
        "rigor": settings.rigor,
        "classes": {t: list(task.classes) for one in sets for t, task in zip(one.targets, one.tasks, strict=True)},
        "split": f"{n} of whole groups, classes spread evenly where groups allow it",
        "score": "accuracy (of numbers R² against the mean of the training rows) on held-out rows, all folds together",
        "interval": "95%, bootstrap over groups (exact binomial where all rows are right), of one place; not "
        "corrected for the number of places",
        "majority": "share of the commonest class among all rows",
        "control": "random labels per word, as frequent as the classes, same split, mean of "
        f"{max(len(controls) for one in sets for controls in one.controls)}; control_shuffled: the same where rows are "
        "split without regard to groups, with the λ most often chosen for the labels at that site",
        "embedding": embedding,
        "alphas": list(settings.alphas),
        "lambda": _lambda_rule(settings),
        "direction": "fitted on all rows with the λ that the folds prefer; stability: mean cosine between the fits "
        "without one fold, which share most of their rows"
        + ("; of a network: the difference of class means" if settings.estimator == "mlp" else ""),
        "verdict": f"decodable: the interval lies above the majority and the score above the control"
        f"{'' if full else ', the first also when corrected for the number of places'}"
        f"{f', and p is at most {settings.alpha:g}' if full else ''}; the whole interval less than {MARGIN:g} above "
        "it: not decodable. "
        "None of this says that the model uses it",
        "seed": settings.seed,
        "alpha": settings.alpha,
        "n_folds": settings.n_folds,
        "leaks": leak_notes(dataset.table),
        "data": dict(dataset.about),
    }
    if full:
        probe = settings.estimator if settings.estimator in CLOSED else "ridge"
        said["p"] = (
            f"{settings.n_permutations} permutations of labels ({', '.join(sorted(set(units.values())))}), best of all "
            f"places, {probe} probes"
        )
        said["bits"] = "code length (mdl) and V-information by logistic probes with L2 penalty; rows group by group"
    return said


def _lambda_rule(settings: Settings) -> str:
    if len(settings.alphas) < 2:
        return "fixed" if settings.estimator != "difference" else "none"
    rule = "share of n × mean variance of a feature of the training rows"
    return (
        f"{rule}; chosen by the other folds inside the training groups; the column alpha has the most frequent choice"
    )


@dataclass(frozen=True)
class _Kept:
    """Finished sites of one call, each a file named for all that decides its numbers."""

    folder: Path | None
    decides: str

    @classmethod
    def of(cls, folder: Any, dataset: ProbeDataset, sets: list[RowSet], settings: Settings) -> _Kept:
        if folder is None:
            return cls(None, "")
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise InputError(f"keep={path} is a file. Give a folder; it is made if it is not there.")
        digest = hashlib.sha256(json.dumps({"method": METHOD, **asdict(settings)}, sort_keys=True).encode())
        for one in sets:
            _hash(digest, one.rows, one.folds, one.shuffled, pd.factorize(one.groups)[0])
            for tasks in (one.tasks, *one.controls):
                for task in tasks:
                    digest.update(repr((task.name, task.classes)).encode())
                    _hash(digest, task.values)
            _hash(digest, *(unit for _, unit in one.units))
        return cls(path, digest.hexdigest())

    def key(self, dataset: ProbeDataset, site: str, stage: str) -> str:
        if self.folder is None:
            return ""
        digest = hashlib.sha256(
            f"{self.decides} {site} {stage} {site in dataset.about.get('baseline_only', ())}".encode()
        )
        for _, block in dataset.blocks(site):
            _hash(digest, block)
        return digest.hexdigest()[:24]

    def get(self, key: str) -> Parts | None:
        """A site that was finished before; a damaged file is measured again."""
        if self.folder is None or not (path := self.folder / f"{key}.safetensors").exists():
            return None
        try:
            return load_file(path)
        except (OSError, SafetensorError, ValueError):
            return None

    def put(self, key: str, parts: Parts) -> None:
        if self.folder is not None:
            whole = {name: np.ascontiguousarray(one) for name, one in parts.items()}
            write_atomically(self.folder / f"{key}.safetensors", lambda path: save_file(whole, path))


def _hash(digest: Any, *arrays: NDArray) -> None:
    for one in arrays:
        digest.update(repr((one.shape, str(one.dtype))).encode())
        digest.update(np.ascontiguousarray(one).tobytes())
