"""Whether the model uses what a probe decodes: interventions along its direction, on the exact engine, and controls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from interp.causal.questions import Question, named_positions, pose
from interp.errors import InputError
from interp.figures.page import figure_html, write_page
from interp.figures.probes import dose_response
from interp.figures.tables import table_html, text_cell
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.frames import about_html, as_records, load_frames, save_frames
from probes.decodable import decodable
from probes.flips import Flips, FoundLike, erasers
from probes.interventions import Setting, cells_of, layers_of
from probes.shares import share_tables
from probes.steering import intervene, read_at, site_of
from probes.verdict import Cutoffs, judge, told

__all__ = ["Use", "test_use"]

DOSES = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Use:
    """What interventions along a probe's direction did to the answers of pairs, and the verdict.

    `frame` has a row per intervention, dose and control: `effect`, the share of clean − corrupt that the metric moved
    towards the corrupt run (0: nothing happened; 1: as if corrupt; may lie outside), with a bootstrap interval over
    items (`low`, `high`), `moved` in the metric's unit, `p` by sign flips, `p_corrected` over the measures that decide,
    and `n` items. Rows of random directions are means over `n_draws` of them (`least` and `most` are single ones).
    `contrasts` compares each deciding measure with its controls; `items` has the effect on each item.
    """

    KIND: ClassVar[str] = "probe_use"
    frame: pd.DataFrame
    contrasts: pd.DataFrame
    items: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ "decodable and used here", "decodable, not used here", "not decodable" or "cannot tell"."""
        return str(self.about["verdict"])

    @property
    def sentence(self) -> str:
        """The verdict with every number that it rests on."""
        return str(self.about["sentence"])

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table, one row per intervention, dose and control."""
        return self.frame.copy()

    def summary(self) -> pd.DataFrame:
        """The table as text for people."""
        lines = []
        for row in self.frame.to_dict("records"):
            dose = "" if np.isnan(row["dose"]) else f" {row['dose']:g}"
            interval = "" if np.isnan(row["low"]) else f" ({text_cell(row['low'])} to {text_cell(row['high'])})"
            p = row["p_corrected"] if row["decides"] else row["p"]
            line = {"intervention": f"{row['intervention']}{dose}", "at": f"{row['place']}, {row['position']}"}
            line |= {"control": row["control"] or "–", "share moved (95%)": f"{text_cell(row['effect'])}{interval}"}
            line |= {"p": "–" if np.isnan(p) else f"{p:.2g}", "decides": "yes" if row["decides"] else ""}
            lines.append(line)
        return pd.DataFrame(lines)

    def to_records(self) -> dict[str, Any]:
        """Plain data for JSON."""
        tables = {"rows": self.frame, "contrasts": self.contrasts}
        return {"about": dict(self.about), **{name: as_records(table) for name, table in tables.items()}}

    def plot(self) -> Any:
        """Plotly: the dose-response curve with random directions, the wrong position, other layers, the exchange."""
        title = f"Steering {self.about['target']} at {self.about['place']}, {self.about['position']}"
        return dose_response(self.frame, title=f"{title}: {self.verdict}")

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        facts = ((name, value) for name, value in self.about.items() if name not in ("sentence", "verdict"))
        rows = "".join(f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in facts)
        sections = [f"<p>{escape(self.sentence)}</p>", figure_html(self.plot(), "doses"), table_html(self.summary())]
        sections += ["<h2>Against its controls</h2>", table_html(self.contrasts)]
        sections.append(f'<h2>How it was measured</h2><ul class="note">{rows}</ul>')
        return write_page(path, f"{self.about['target']} at {self.about['place']}: {self.verdict}", sections)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: three Parquet tables and about.json, all or nothing."""
        frames = {"frame": self.frame, "contrasts": self.contrasts, "items": self.items}
        return save_frames(path, self.KIND, 1, self.about, frames)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Use:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, frames = load_frames(path, cls.KIND, 1, ("frame", "contrasts", "items"))
        return cls(frames["frame"], frames["contrasts"], frames["items"], about)

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.sentence}"

    def _repr_html_(self) -> str:
        return about_html(f"{self.about['target']} at {self.about['place']}", self.sentence, self.summary())


def test_use(
    found: FoundLike,
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    position: str = "subject",
    wrong_position: str | None = "attractor",
    labels: Any = None,
    doses: Sequence[int | float] = DOSES,
    decisive: int | float = 1.0,
    n_random: int = 8,
    other_layers: Sequence[int] | None = None,
    metric: Any = None,
    min_effect: float = 0.05,
    alpha: float = 0.05,
    min_items: int = 8,
    max_bytes: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Use:
    """Intervene on what a probe reads, at a named position of the clean prompts, and see what the answers do.

    `found` is one probe (`results.at(place)`). At its place and `position`: steer by `doses` towards the other class
    (1 is the distance between the class means along the probe's direction), ablate the direction (its coordinate set
    to the dataset's mean), swap class means (x − own + other), erase with LEACE and INLP (fitted on the probe's rows).
    Controls: `n_random` random directions of the same length, the same edits at `wrong_position`, the same vectors in
    `other_layers` (None: four spread over the model), and as an upper bound the exchange of the whole vector with the
    corrupt run's (and of the residual behind it, where the place is not a residual). A name of several tokens is edited
    at each of them.

    The class of each pair at the position is `labels`, or what the probe reads there; the other one is what it reads in
    the corrupt run, if that differs, else the next. Effects are shares of clean − corrupt of `metric` ("logit_diff"
    unless given; a model without logits needs one of its residuals), so choose pairs whose corrupt prompt has the other
    class. Steering by `decisive` and the swap decide: used if one moves at least `min_effect`, with a p corrected over
    both of at most `alpha`, and more than random directions and the wrong position (bootstrap over items).

    Exact. Cost: 5 passes over the pairs, and about 90 cells a prompt, which run only the layers and tokens they reach.
    Raises `InputError` for positions that the pairs do not name and places that cannot be edited.
    """
    if not isinstance(found, FoundLike):
        raise InputError(f"A test of use takes one probe, results.at(place), not a {type(found).__name__}.")
    if len(doses) == 0 or not all(map(is_finite, (*doses, decisive))) or decisive <= 0 or n_random < 1:
        raise InputError(
            f"doses={tuple(doses)}, decisive={decisive}, n_random={n_random}: give doses, and the rest above 0."
        )
    if not min_effect > 0 or not 0 < alpha < 1 or min_items < 1:
        raise InputError(
            f"min_effect={min_effect}, alpha={alpha}, min_items={min_items}: give a share above 0, a probability, 1 "
            "item or more."
        )
    if wrong_position == position:
        raise InputError(f"The wrong position is the position itself, {position!r}. Give another, or None.")
    doses = tuple(sorted({*map(float, doses), float(decisive)}))
    question = pose(model, pairs, "logit_diff" if metric is None else metric)
    site = site_of(model, found.place)
    for name in (position, wrong_position) if wrong_position else (position,):
        for pair in range(len(pairs)):
            if not named_positions(pairs, name, pair, in_encoder=question.counts_in_encoder(site)):
                raise InputError(f"Pair {pair} has nothing at {name!r}. Leave such pairs out: pairs.select(…).")
    say = progress or (lambda stage, done, total: None)
    clean, corrupt = (read_at(question, found.place, position, which) for which in ("clean", "corrupt"))
    flips = Flips.of(found, clean, corrupt, labels)
    erased, without = erasers(found, seed)
    layers = layers_of(model, found.place, other_layers)
    setting = Setting(found.place, position, wrong_position, doses, decisive, n_random, tuple(layers), seed)
    cells = list(cells_of(setting, flips, erased, model))
    say("interventions", 0, 1)
    measured = intervene(
        question, cells, max_bytes=max_bytes, progress=lambda done, total: say("interventions", done, total)
    )
    cutoffs = Cutoffs(min_effect, alpha, min_items)
    frame, contrasts, items, gap = share_tables(question, setting, cells, measured, seed)
    reads = decodable(found)
    about = _about(found, question, setting, flips, gap, cutoffs, erased)
    about |= {"not_erased": without} if without else {}
    about["read_in_clean"] = float((flips.read(clean) == flips.own).mean()) if labels is not None else None
    about["reads"] = reads
    verdict, why = judge(frame, contrasts, gap, reads, cutoffs)
    about |= {"verdict": verdict, "sentence": told(verdict, why, frame, about, reads)}
    return Use(frame, contrasts, items, about)


test_use.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value))


def _about(
    found: FoundLike,
    question: Question,
    s: Setting,
    flips: Flips,
    gap: Mapping[str, Any],
    cutoffs: Cutoffs,
    erased: Mapping[str, Any],
) -> dict[str, Any]:
    counts = {name: int((flips.own == i).sum()) for i, name in enumerate(flips.classes)}
    return {
        "model": question.model.cfg.model_name,
        "target": found.target,
        "place": str(found.place),
        "position": s.position,
        "wrong_position": s.wrong,
        "classes": list(flips.classes),
        "pairs_by_own_class": counts,
        "dose_1": float(np.linalg.norm(flips.shift, axis=1).mean()),
        "doses": list(s.doses),
        "decisive": ["swap", f"steer {s.decisive:g}"],
        "n_random": s.n_random,
        "other_layers": list(s.layers),
        "erased_rank": {name: one.rank for name, one in erased.items()},
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "gap": dict(gap),
        "min_effect": cutoffs.min_effect,
        "alpha": cutoffs.alpha,
        "min_items": cutoffs.min_items,
        "intervals": "95%, bootstrap over items; p by sign flips of items, corrected over the measures that decide",
        "seed": s.seed,
        "exact": True,
    }
