"""Decodable is not used: a sentence's number at its subject and at a noun that stands between subject and verb."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.causal.questions import pose
from interp.errors import InputError
from interp.figures.document import Part, html_sections, markdown
from interp.figures.page import figure_html, write_page
from interp.files import write_text
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site
from interp.stats import bootstrap_interval, item_means
from probes.data import ProbeDataset
from probes.steering import intervene
from probes.used import Use, test_use

__all__ = ["POINTS", "Demonstration", "Point", "at_points", "demonstrate", "layer_table"]

Progress = Callable[[str, int, int], None]
RIGORS = {"quick": {"n": 25, "items": 24, "n_layers": 3, "n_random": 8}}
RIGORS["full"] = {"n": 25, "items": 48, "n_layers": 6, "n_random": 16}


@dataclass(frozen=True)
class Point:
    """A number and where it is read: the label, the place in the sentence, and which prompts can test its use."""

    target: str  # of the sweep
    label: str  # of the label set
    where: str  # place in the sentence, of rows and of pairs
    wrong: str  # where the same edit is made as a control
    congruent: bool  # only prompts whose two nouns have one number: pushing either pushes towards the foil


_BEFORE = "the word before the attractor"  # near it, and without a number
POINTS = (
    Point("subject number at the subject", "subject number", "subject", "attractor", False),
    Point("attractor number at the attractor", "attractor number", "attractor", _BEFORE, True),
    Point("subject number at the attractor", "subject number", "attractor", _BEFORE, False),
)


@dataclass(frozen=True)
class Demonstration:
    """`results`: probes of each number at each noun, over all places. `uses`: the test of use of each target at the
    chosen place. `by_layer`: the same tests, shorter, at places through the model. `about` says how."""

    results: Any
    uses: tuple[Use, ...]
    by_layer: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict of each test of use, with every number it rests on; and what the attractor's word itself does."""
        said = [use.sentence for use in self.uses]
        if natural := self.about.get("attraction"):
            share = f"{natural['share']:.2f} ({natural['low']:.2f} to {natural['high']:.2f})"
            said.append(f"Writing the attractor itself in its other number moves {share} of clean − corrupt.")
        return tuple(said)

    def to_frame(self) -> pd.DataFrame:
        """What is decodable and what steering does, a row per target and place."""
        return self.by_layer.copy()

    def summary(self) -> pd.DataFrame:
        """The same as text for people."""
        lines = []
        for row in self.by_layer.to_dict("records"):
            decoded = f"{row['score']:.2f} ({row['score_low']:.2f} to {row['score_high']:.2f})"
            line = {"target": row["target"], "place": row["place"], "decoded (95%)": decoded}
            for name in ("steer", "swap", "random", "wrong", "interchange"):
                ends = f" ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})" if f"{name}_low" in row else ""
                line[_TITLES[name]] = f"{row[name]:.2f}{ends}"
            lines.append({**line, "verdict": row["verdict"]})
        return pd.DataFrame(lines)

    def to_records(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from interp.results.frames import as_records

        tables = {"probes": self.results.to_frame(), "by_layer": self.by_layer}
        records = {name: as_records(table) for name, table in tables.items()}
        return {**records, "uses": [use.to_records() for use in self.uses], "about": dict(self.about)}

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """Markdown; also written to `path`."""
        text = markdown(self._document())
        if path is not None:
            write_text(path, text)
        return text

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: accuracy by layer, dose-response at each noun, tables."""
        figures = [figure_html(self.results.plot(use.about["target"]), f"layers{i}") for i, use in enumerate(self.uses)]
        figures += [figure_html(use.plot(), f"doses{i}") for i, use in enumerate(self.uses)]
        title, *parts = self._document()
        sections = html_sections(parts)
        facts = "".join(f"<li>{escape(str(name))}: {escape(str(one))}</li>" for name, one in self.about.items())
        settings = f'<h2>How it was measured</h2><ul class="note">{facts}</ul>'
        return write_page(path, title[1], [*sections[:3], *figures, *sections[3:], settings])

    def __str__(self) -> str:
        return "\n".join([self.summary().to_string(index=False), *self.sentences])

    def _repr_html_(self) -> str:
        return "".join(html_sections(self._document()[1:]))

    def _document(self) -> list[Part]:
        parts: list[Part] = [("1", f"Decodable and used: number in {self.about.get('model', 'a model')}")]
        parts += [("list", list(self.sentences)), ("2", "Through the model"), ("table", self.summary())]
        parts += [("2", "What is decodable, by layer")]
        for use in self.uses:
            target = use.about["target"]
            parts += [("3", target), ("table", layer_table(self.results, target))]
        return parts


_TITLES = {"steer": "steered by 1", "swap": "means swapped", "random": "random", "wrong": "wrong position"}
_TITLES["interchange"] = "all exchanged"


def demonstrate(
    model: HookedTransformer,
    *,
    sites: Any = "resid",
    estimator: str = "ridge",
    rigor: str = "quick",
    n: int | None = None,
    items: int | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demonstration:
    """Number in "The authors near the cabinet", at the subject and at the attractor: decoded, and tested for use.

    Three targets: each noun's own number where it stands, and the subject's number read at the attractor. The wrong
    position of the first is the attractor, of the others the word before the attractor. The attractor's own number is
    tested on prompts whose nouns have one number, where flipping it pushes towards the foil.

    Probes are fitted on sentences of one half of the nouns (`n` pairs of nouns), and their use is tested on agreement
    prompts (a prepositional phrase between subject and verb) of the other half (`items` of them, two prompts each):
    at what enters `layers` (None: spread over the first two thirds of the model), and at the residual
    where a target is decoded better than there. A target's full test is at the first of these places where it is
    decoded within 0.01 of the best; at the others the test is short.
    `about["attraction"]` is what writing the attractor itself in its other number moves. Cost: a pass over the
    sentences, a sweep, and about 250 cells for each prompt.
    """
    import probes

    if rigor not in RIGORS:
        raise InputError(f"rigor is {rigor!r}. Choose quick or full.")
    chosen, say = RIGORS[rigor], progress or (lambda stage, done, total: None)
    for name, count in (("n", n), ("items", items)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"{name} is {count!r}. Give a whole number, at least 1, or leave it out.")
    data = probes.dataset(
        model,
        "agreement",
        sites=sites,
        random_init=True,
        n=n or chosen["n"],
        seed=seed,
        split="select",
        progress=progress,
    )
    results = probes.sweep(at_points(data), estimator, rigor=rigor, seed=seed, progress=progress)
    pairs = {point.target: _pairs(model, point, items or chosen["items"], seed) for point in POINTS}
    places = _places(model, results, layers, chosen["n_layers"])
    tested = {point.target: _with_best(results, places, point.target) for point in POINTS}
    chosen_at = {target: _headline(results, mine, target) for target, mine in tested.items()}
    uses, lines = [], []
    for point in POINTS:
        for number, place in enumerate(tested[point.target]):
            say(f"use of {point.target}", number, len(tested[point.target]))
            full = place == chosen_at[point.target]
            more: dict[str, Any] = {"n_random": chosen["n_random"]}
            found = results.at(place, point.target)
            if not full:
                more = {"doses": (1.0,), "n_random": 2, "other_layers": ()}
                found = replace(found, dataset=None)  # no erasers
            here, there = f"{point.where}:last", f"{point.wrong}:last"
            use = test_use(found, model, pairs[point.target], position=here, wrong_position=there, seed=seed, **more)
            lines.append(_line(point, use, found.row))
            uses += [use] if full else []
        say(f"use of {point.target}", len(tested[point.target]), len(tested[point.target]))
    about = {"model": model.cfg.model_name, "task": "agreement", "rigor": rigor, "seed": seed, "estimator": estimator}
    about |= {"sites": str(sites), "places": tested, "full_test_at": chosen_at}
    about["attraction"] = _attraction(model, pairs[POINTS[1].target], items or chosen["items"], seed)
    about |= {"pairs": {name: len(some) for name, some in pairs.items()}, "splits": "probes: select; use: report"}
    return Demonstration(results, tuple(uses), pd.DataFrame(lines), about)


def at_points(data: ProbeDataset) -> ProbeDataset:
    """The label set of agreement with one target for each number at each noun, and no label at other rows."""
    columns = {}
    for point in POINTS:
        here = (data.table["where"] == point.where).to_numpy()
        columns[point.target] = data.labels[point.label].where(here, None)
    kept = np.flatnonzero(pd.DataFrame(columns).notna().any(axis=1).to_numpy())
    labels = pd.DataFrame(columns)
    twin = None if data.random_init is None else replace(data.random_init, labels=labels)
    return replace(data, labels=labels, random_init=twin).select(kept)


def layer_table(results: Any, target: str) -> pd.DataFrame:
    """What is decodable by place as text for people, with control and baselines."""
    rows = results.to_frame()
    rows = rows.loc[rows["target"] == target]
    table = {"place": rows["place"].astype(str).tolist()}
    ends = zip(rows["score"], rows["score_low"], rows["score_high"], strict=True)
    table["decoded (95%)"] = [f"{value:.2f} ({low:.2f} to {high:.2f})" for value, low, high in ends]
    for name in ("majority", "control", "selectivity", "embedding", "random_init", "mdl", "p"):
        if name in rows and rows[name].notna().any():
            table[name.replace("_", " ")] = ["–" if pd.isna(one) else f"{one:.2f}" for one in rows[name]]
    return pd.DataFrame({**table, "verdict": rows["verdict"].tolist()})


def _pairs(model: HookedTransformer, point: Point, items: int, seed: int) -> PromptPairs:
    """Prompts with a noun in a prepositional phrase, two for each item, one of either number."""
    import interp

    n = min(items, _most(model))
    task = interp.tasks.load("agreement", model, "subject", split="report", n=n, seed=seed)
    assert task.pairs is not None
    labels = zip(task.labels["condition"], task.labels["congruence"], task.labels["number"], task.items, strict=True)
    names = list(dict.fromkeys(task.items))
    kept = []
    for i, (condition, congruence, number, item) in enumerate(labels):
        # Else by turns, so that each item has a prompt of each number, one congruent and one not.
        first = (names.index(item) % 2 == 0) == (number == "singular")
        if condition == "PP" and congruence == ("congruent" if point.congruent or first else "incongruent"):
            kept.append(i)
    pairs = task.pairs.select(kept)
    before = tuple((span[0] - 1,) for span in pairs.positions["attractor"])
    return replace(pairs, positions={**pairs.positions, _BEFORE: before})


def _most(model: HookedTransformer) -> int:
    """Nouns of the half that reports, of one token in this model."""
    from interp.tasks.agreement_words import PEOPLE, THINGS
    from interp.tasks.words import half, is_one_token

    nouns = [noun for some in (PEOPLE, THINGS) for noun in half(some, "report")]
    return sum(all(is_one_token(model.tokenizer, word) for word in noun) for noun in nouns)


def _places(model: HookedTransformer, results: Any, layers: Sequence[int] | None, n_layers: int) -> list[str]:
    """Names of the places that are tested: what enters some layers; without residuals the best place of each target."""
    rows = results.to_frame()
    residuals = {
        int(row["layer"]): str(row["place"])
        for row in rows.to_dict("records")
        if Site.parse(str(row["site"])).name == "hook_resid_pre"
    }
    if not residuals:
        return list(dict.fromkeys(str(results.best(point.target).place) for point in POINTS))
    depth = model.main.config.n_layers
    spread = [round(2 / 3 * (depth - 1) * (i + 1) / n_layers) for i in range(n_layers)]
    asked = spread if layers is None else list(layers)
    missing = [one for one in asked if one not in residuals]
    if missing:
        raise InputError(f"No residual that enters layer {missing[0]} was probed. There are {sorted(residuals)}.")
    return [residuals[one] for one in dict.fromkeys(asked)]


def _with_best(results: Any, places: Sequence[str], target: str) -> list[str]:
    """The places of all targets, and the residual where this one is decoded better than at any of them."""
    rows = results.to_frame()
    enters = np.array([Site.parse(str(one)).name == "hook_resid_pre" for one in rows["site"]], dtype=bool)
    rows = rows.loc[(rows["target"] == target).to_numpy() & enters]
    if rows.empty:
        return list(places)
    best = rows.loc[rows["score"].idxmax()]
    here = max(float(results.at(place, target).row["score"]) for place in places)
    return [*places, str(best["place"])] if best["score"] > here + 0.01 else list(places)


def _headline(results: Any, places: Sequence[str], target: str) -> str:
    """The first place where a target is decoded within 0.01 of the best of them."""
    scores = [float(results.at(place, target).row["score"]) for place in places]
    return next(place for place, score in zip(places, scores, strict=True) if score >= max(scores) - 0.01)


def _attraction(model: HookedTransformer, pairs: PromptPairs, items: int, seed: int) -> dict[str, Any]:
    """What it moves to write the attractor itself in its other number, as a share of clean − corrupt (of the subject's
    number): what flipping it inside the model can be compared with."""
    import interp

    n = min(items, _most(model))
    task = interp.tasks.load("agreement", model, "attractor", split="report", n=n, seed=seed)
    assert task.pairs is not None
    other = task.pairs.select([i for i, one in enumerate(task.labels["condition"]) if one == "PP"])
    assert other.clean == pairs.clean, "the task draws other prompts for another corruption"
    moved, gap = (_gaps(model, some) for some in (other, pairs))
    low, high = bootstrap_interval(moved, divisor=gap, seed=seed)
    return {"share": float(moved.mean() / gap.mean()), "low": float(low[0]), "high": float(high[0])}


def _gaps(model: HookedTransformer, pairs: PromptPairs) -> Any:
    """clean − corrupt of each item `[item one]`."""
    question = pose(model, pairs, "logit_diff")
    measured = intervene(question, [])
    return item_means((measured.base - measured.source)[:, None], np.array(question.items))


def _line(point: Point, use: Use, row: Any) -> dict[str, Any]:
    """Decoding and use of one target at one place."""

    def of(intervention: str, control: str = "") -> dict[str, Any]:
        rows = use.frame
        found = rows.loc[(rows["intervention"] == intervention) & (rows["control"] == control)]
        found = found.loc[found["dose"].isna() | (found["dose"] == 1.0)]
        return found.iloc[0].to_dict()

    line = {"target": point.target, "place": use.about["place"], "position": point.where}
    line |= {name: float(row[name]) for name in ("score", "score_low", "score_high", "majority")}
    for name, cell in {
        "steer": of("steer"),
        "swap": of("swap"),
        "random": of("steer", "random directions"),
        "wrong": of("steer", "wrong position"),
        "interchange": of("interchange"),
    }.items():
        line |= (
            {name: cell["effect"]}
            if name == "random"
            else {name: cell["effect"], f"{name}_low": cell["low"], f"{name}_high": cell["high"]}
        )
    return {**line, "verdict": use.verdict}
