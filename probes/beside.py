"""What probes decode from heads next to what heads cause: one table, one figure, and where the two disagree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from interp.errors import InputError
from interp.figures import probes as figures
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.results import HeadScores
from interp.results.frames import about_html, load_frames, save_frames
from interp.results.heads import head_of, with_interval
from interp.sites import Site

__all__ = ["Beside", "beside_causes"]

BOTH, ONLY_DECODED, ONLY_CAUSED, NEITHER, OPEN = (
    "decodable and an effect",
    "decodable but no effect",
    "effect but not decodable",
    "neither",
    "cannot tell",
)
_COLUMNS = ("target", "site", "head", "score", "score_low", "score_high", "majority")  # of a sweep
_SHOWN = 12


@dataclass(frozen=True)
class Beside:
    """One row per target, kind and head whose effect was measured: the accuracy of a probe on the head's output with
    its interval and the best constant's, the head's causal effect with its interval, and what the two say together.

    `correlations` has a row per target and kind: Spearman's ρ of accuracy and size of the effect over heads, with a
    bootstrap interval over heads. `words` say it in sentences; `heading`, `words`, `summary()` and `plot()` are what
    `interp.report(…, beside=…)` takes.
    """

    KIND: ClassVar[str] = "probes_beside"
    heading: ClassVar[str] = "What probes decode from heads, beside what heads cause"
    frame: pd.DataFrame
    correlations: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.frame.copy()

    @property
    def disagreements(self) -> pd.DataFrame:
        """The heads that are decodable without an effect, or have one and are not decodable."""
        return self.frame.loc[self.frame["agreement"].isin([ONLY_DECODED, ONLY_CAUSED])].reset_index(drop=True)

    @property
    def words(self) -> tuple[str, ...]:
        """The correlation and the disagreements of each target and kind, as sentences."""
        said = []
        for row in self.correlations.to_dict("records"):
            mine = self.frame.loc[(self.frame["target"] == row["target"]) & (self.frame["kind"] == row["kind"])]
            rho = "cannot be told" if np.isnan(row["rho"]) else with_interval(row, "rho")
            said.append(
                f"{row['target']} beside {row['kind']}: rank correlation of accuracy and size of the effect {rho} over "
                f"{row['n_heads']} heads; {row['not_tested']} more were probed whose effect was not measured."
            )
            for agreement in (ONLY_DECODED, ONLY_CAUSED, OPEN):
                some = mine.loc[mine["agreement"] == agreement]
                order = "accuracy" if agreement == ONLY_DECODED else "size"  # the most striking first
                some = some.assign(size=some["effect"].abs()).sort_values(order, ascending=False)
                if len(some):
                    said.append(f"{agreement} ({len(some)}): {_listed(some)}.")
        return tuple(said)

    def summary(self) -> pd.DataFrame:
        """The table as text for people, disagreements first."""
        order = [ONLY_CAUSED, ONLY_DECODED, BOTH, OPEN, NEITHER]
        table = self.frame.assign(size=self.frame["effect"].abs(), rank=self.frame["agreement"].map(order.index))
        lines = [
            {
                "target": row["target"],
                "kind": row["kind"],
                "head": row["head"],
                "accuracy (95%)": with_interval(row, "accuracy"),
                "majority": f"{row['majority']:.2f}",
                "effect (95%)": with_interval(row, "effect"),
                "together": row["agreement"],
            }
            for row in table.sort_values(["rank", "size"], ascending=[True, False]).to_dict("records")
        ]
        return pd.DataFrame(lines).head(40)

    def plot(self, target: str | None = None, kind: str | None = None) -> Any:
        """Plotly: accuracy against effect, a point a head, the disagreements named; the first target and kind unless
        said otherwise."""
        target, kind = target or self.frame["target"].iloc[0], kind or self.frame["kind"].iloc[0]
        rows = self.frame.loc[(self.frame["target"] == target) & (self.frame["kind"] == kind)]
        if rows.empty:
            raise InputError(f"There is no {target!r} beside {kind!r} here.")
        odd = rows.loc[rows["agreement"].isin([ONLY_DECODED, ONLY_CAUSED])]
        odd = odd.loc[(odd["accuracy"].rank(ascending=False) <= _SHOWN) | (odd["agreement"] == ONLY_CAUSED)]
        return figures.beside_causes(rows, title=f"{target} beside {kind}", labelled=odd["head"].tolist())

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        pairs = self.correlations[["target", "kind"]].itertuples(index=False)
        sections = [f"<p>{escape(one)}</p>" for one in self.words]
        sections += [figure_html(self.plot(a, b), f"beside{i}") for i, (a, b) in enumerate(pairs)]
        facts = "".join(f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in self.about.items())
        sections += [table_html(self.summary()), f'<h2>How it was measured</h2><ul class="note">{facts}</ul>']
        return write_page(path, self.heading, sections)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: two Parquet tables and about.json."""
        return save_frames(path, self.KIND, 1, self.about, {"frame": self.frame, "correlations": self.correlations})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Beside:
        """Read what `save` wrote; raises `StorageError` for a damaged folder."""
        about, frames = load_frames(path, cls.KIND, 1, ("frame", "correlations"))
        return cls(frames["frame"], frames["correlations"], about)

    def __str__(self) -> str:
        return "\n".join([self.summary().to_string(index=False), *self.words])

    def _repr_html_(self) -> str:
        return about_html(self.heading, " ".join(self.words), self.summary())


def beside_causes(
    results: Any,
    heads: HeadScores,
    *,
    kinds: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    min_effect: float = 0.05,
    alpha: float = 0.05,
    seed: int = 0,
) -> Beside:
    """Put probes on heads' outputs (a sweep with `sites="z"`) next to the effects of `find_heads` on the same model.

    `kinds` of `heads`: those that were given effects, unless named. Whether a head is decodable is the sweep's verdict
    (without one: whether the interval of its accuracy lies above the best constant's). A head has an effect if its
    interval excludes 0, the effect is at least `min_effect` either way, and the corrected p of a harm, where there is
    one, is at most `alpha`; it has none if the whole interval is smaller than `min_effect`; else there is no telling.
    Heads whose effect was not measured are counted, not compared: `find_heads(…, screen="none")` measures all. Raises
    `InputError` where the two have no head in common.
    """
    probed = _probed(results)
    causes = heads.frame.loc[heads.frame["effect"].notna()]
    wanted = list(dict.fromkeys(causes["kind"])) if kinds is None else list(kinds)
    unknown = [one for one in wanted if one not in heads.kinds]
    if unknown:
        raise InputError(f"These heads hold no kind {unknown[0]!r}. They hold {', '.join(heads.kinds)}.")
    targets = list(dict.fromkeys(probed["target"])) if targets is None else list(targets)
    parts, correlations = [], []
    for target in targets:
        mine = probed.loc[probed["target"] == target]
        for kind in wanted:
            table = _together(mine, causes.loc[causes["kind"] == kind], min_effect, alpha)
            if len(table):
                line = {
                    "target": target,
                    "kind": kind,
                    **_correlation(table, seed),
                    "not_tested": len(mine) - len(table),
                }
                correlations.append(line)
                parts.append(table.assign(target=target, kind=kind))
    if not parts:
        raise InputError("No head was both probed and tested. Sweep sites='z', and find heads of the same model.")
    frame = pd.concat(parts, ignore_index=True)
    first = ["target", "kind", "head"]
    frame = frame.reindex(columns=first + [name for name in frame.columns if name not in first])
    about = {"min_effect": min_effect, "alpha": alpha, "seed": seed, "model": heads.about.get("model")}
    about |= {"units": {kind: heads.unit(kind) for kind in wanted}, "intervals": "95%; ρ by bootstrap over heads"}
    return Beside(frame, pd.DataFrame(correlations), about)


def _probed(results: Any) -> pd.DataFrame:
    """Rows of heads' outputs: target, stack, layer, head, accuracy with interval, majority."""
    frame = results.to_frame() if hasattr(results, "to_frame") else results.frame
    needed = [
        name for name in ("target", "site", "head", "score", "score_low", "score_high", "majority") if name not in frame
    ]
    if needed:
        raise InputError(f"These results have no column {needed[0]!r}. Give what probes.sweep(…) returned.")
    lines = []
    for row in frame.to_dict("records"):
        site = Site.parse(str(row["site"]))
        if site.name != "hook_z" or row["head"] is None or np.isnan(float(row["head"])):
            continue
        line = {"target": row["target"], "stack": site.stack, "sublayer": site.part, "layer": int(site.layer or 0)}
        line |= {"head": int(row["head"]), "accuracy": row["score"], "accuracy_low": row["score_low"]}
        line |= {"accuracy_high": row["score_high"], "majority": row["majority"]}
        lines.append({**line, "probe_verdict": row.get("verdict") or ""})
    if not lines:
        raise InputError('These results hold no heads. Make them of sites="z": probes.dataset(…, sites="z").')
    return pd.DataFrame(lines)


def _together(probed: pd.DataFrame, causes: pd.DataFrame, min_effect: float, alpha: float) -> pd.DataFrame:
    """Heads that have both, and what the two say."""
    by = ["stack", "sublayer", "layer", "head"]
    columns = ["effect", "effect_low", "effect_high", "verdict"] + [n for n in ("p_corrected",) if n in causes]
    table = probed.merge(causes[by + columns], on=by)
    lines = []
    for row in table.to_dict("records"):
        decodable, effect = _decodable(row), _has_effect(row, min_effect, alpha)
        said = OPEN
        if decodable is not None and effect is not None:
            said = (BOTH if effect else ONLY_DECODED) if decodable else (ONLY_CAUSED if effect else NEITHER)
        line = {"head": head_of(row)}
        line |= {name: row[name] for name in ("accuracy", "accuracy_low", "accuracy_high", "majority")}
        line |= {name: row[name] for name in columns}
        lines.append({**line, "agreement": said})
    return pd.DataFrame(lines)


def _decodable(row: Mapping[Any, Any]) -> bool | None:
    known = {"decodable": True, "not decodable": False}
    if row["probe_verdict"]:
        return known.get(str(row["probe_verdict"]))
    return bool(row["accuracy_low"] > row["majority"])


def _has_effect(row: Mapping[Any, Any], min_effect: float, alpha: float) -> bool | None:
    """Whether a head does something; None where the interval and the test leave it open."""
    if max(abs(row["effect_low"]), abs(row["effect_high"])) < min_effect:
        return False
    clear = bool(row["effect_low"] > 0 or row["effect_high"] < 0) and abs(row["effect"]) >= min_effect
    p = row.get("p_corrected", float("nan"))
    # A p of harm says nothing of heads that work against the behaviour: their interval alone decides.
    return True if clear and (row["effect"] < 0 or np.isnan(p) or p <= alpha) else None


def _correlation(table: pd.DataFrame, seed: int, n_resamples: int = 2_000) -> dict[str, Any]:
    """Spearman's ρ of accuracy and |effect| over heads, with its percentile interval."""
    x, y = table["accuracy"].to_numpy(float), table["effect"].abs().to_numpy(float)
    nan = float("nan")
    found = {"rho": _spearman(x, y), "rho_low": nan, "rho_high": nan, "n_heads": len(x)}
    if len(x) < 4 or np.isnan(found["rho"]):
        return found
    generator = np.random.default_rng([seed, *b"heads"])
    draws = [_spearman(x[chosen], y[chosen]) for chosen in generator.integers(0, len(x), (n_resamples, len(x)))]
    found["rho_low"], found["rho_high"] = (float(one) for one in np.nanquantile(draws, [0.025, 0.975]))
    return found


def _spearman(x: Any, y: Any) -> float:
    a, b = rankdata(x), rankdata(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _listed(rows: pd.DataFrame) -> str:
    first = rows.head(_SHOWN).to_dict("records")
    shown = [f"{row['head']} (decoded {row['accuracy']:.2f}, effect {row['effect']:+.2f})" for row in first]
    return ", ".join(shown) + (f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")
