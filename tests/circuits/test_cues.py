"""Cues that compete: a balanced design, slopes that tell cues apart, parts that add up, exchanges that are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.circuits.cue_prompts import DESIGNS
from interp.circuits.cues import _Fit
from interp.errors import InputError
from interp.results.cues import CueCompetition
from interp.runs.store import RunStore


class Words:
    """A tokenizer to which every word is one token."""

    def encode(self, text: str, prepend_bos: bool = False) -> list[int]:
        return [0] * len(text.split())


def prompts(task: str, n: int = 8) -> list[Any]:
    return DESIGNS[task].make(Words(), n, 0)


@pytest.mark.parametrize(("task", "per_item"), [("coreference", 12), ("agreement", 8)])
def test_every_item_is_written_in_every_combination_of_its_cues(task: str, per_item: int) -> None:
    made = prompts(task)
    assert len(made) == 8 * per_item == len({(one.text, one.answer, one.foil) for one in made})
    for item in {one.item for one in made}:
        mine = [one for one in made if one.item == item]
        assert len(mine) == per_item
        for kind in {one.kind for one in mine}:
            cues = pd.DataFrame([one.cues for one in mine if one.kind == kind])
            assert set(np.unique(cues)) == {-0.5, 0.5} and (cues.mean() == 0).all()


@pytest.mark.parametrize("task", DESIGNS)
def test_the_turned_prompt_is_the_one_with_every_cue_reversed(task: str) -> None:
    made = prompts(task)
    for one in made:
        (twin,) = [x for x in made if x.text == one.turned and (x.item, x.answer) == (one.item, one.answer)
                   and x.foil == one.foil and x.kind == one.kind]  # fmt: skip
        assert twin.cues == {name: -value for name, value in one.cues.items()} and twin.turned == one.text
        assert twin.nuisance == one.nuisance


def test_where_the_pronoun_fits_both_it_is_the_same_one_on_either_side() -> None:
    for one in prompts("coreference"):
        said, turned = (" he " in text for text in (one.text, one.turned))
        assert (said == turned) == (one.kind == "pronoun fits both")


@pytest.mark.parametrize("task", DESIGNS)
def test_slopes_find_each_cue_by_itself(task: str) -> None:
    """What was made of the cues is found again, also where two of them are correlated."""
    made, cues = prompts(task), tuple(DESIGNS[task].cues)
    generator = np.random.default_rng(0)
    true = dict(zip(cues, generator.normal(size=len(cues)), strict=True))
    level = {one.item: generator.normal() * 50 for one in made}
    y = [level[one.item] + sum(true[name] * value for name, value in one.cues.items()) for one in made]
    y = np.array(y) + [3 * sum(one.nuisance.values()) for one in made]
    fit = _Fit(made, cues)
    found = fit.slopes(y[:, None])
    np.testing.assert_allclose(found[:, 0], np.tile(list(true.values()), (8, 1)), atol=1e-9)
    assert fit.explained(y) == pytest.approx(1.0)
    noise = generator.normal(size=len(made))
    assert fit.explained(noise) < 0.7


@pytest.fixture(scope="module")
def found(smollm2: Any) -> CueCompetition:
    return interp.cue_competition(smollm2, "agreement", n=4, heads=["26.0", "0.3"], progress=False)


def test_the_parts_of_each_cue_add_up_to_its_effect(found: CueCompetition) -> None:
    outcome = found.outcome.set_index("cue")
    np.testing.assert_allclose(outcome[["heads", "mlps", "other"]].sum(axis=1), outcome["value"], atol=1e-3)
    direct = found.parts.loc[found.parts["measure"] == "direct"]
    np.testing.assert_allclose(direct.groupby("cue")["value"].sum()[outcome.index], outcome["value"], atol=1e-3)
    means = found.prompts.groupby("subject")["logit_diff"].mean()
    other = found.prompts.groupby("nearest noun")["logit_diff"].mean()
    assert outcome.loc["subject", "value"] > 0 and means[0.5] > means[-0.5] and other[0.5] > other[-0.5]


def test_the_exchange_is_that_of_patch(found: CueCompetition, smollm2: Any) -> None:
    table = found.prompts
    pairs = interp.PromptPairs.from_text(
        smollm2, table["text"].tolist(), table["turned"].tolist(), table["answer"].tolist(), table["foil"].tolist()
    )
    effects = interp.patch(smollm2, pairs, ["26.0"], over=("target",), direction="noise", progress=False)
    change = pd.Series(effects.values.values[:, 0])
    design = np.column_stack([np.ones(8), *(table[cue].head(8) for cue in ("subject", "other noun", "nearest noun"))])
    near = table["template"].head(8).str.contains("other noun last") - 0.5
    design = np.column_stack([design, near])
    slopes = [np.linalg.lstsq(design, change[i : i + 8], rcond=None)[0][1:4] for i in range(0, 32, 8)]
    mine = found.parts.query("measure == 'exchange' and part == '26.0'")["value"]
    np.testing.assert_allclose(mine, -np.mean(slopes, axis=0) / 2, atol=1e-4)


def test_heads_that_are_tested_were_chosen_by_other_items(smollm2: Any) -> None:
    chosen = interp.cue_competition(smollm2, "agreement", n=4, top=1, progress=False)
    assert chosen.about["n_tested"] == 2 and 1 <= len(chosen.about["tested"]) <= 6
    assert set(chosen.parts.query("measure == 'exchange'")["part"]) == set(chosen.about["tested"])


def test_it_is_stored_drawn_and_shown(found: CueCompetition, tmp_path: Path) -> None:
    back = RunStore(tmp_path / "runs").save(found, spec={"analysis": "cues", "model": "x"}).results()
    assert repr(back) == repr(found)
    for name in ("outcome", "parts", "prompts"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(found, name))
    assert dict(found.values.sizes) == {"measure": 2, "part": len(set(found.parts["part"])), "cue": 3}
    assert len(found.plot().data) == 6
    page = found.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "items share words" in page and "26.0" in found._repr_html_() and "26.0" in str(found)
    with pytest.raises(InputError, match="There is direct and exchange"):
        found.top(3, "both")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("agreements", {}, "Choose coreference or agreement"),
        ("agreement", {"n": 3}, "n is 3"),
        ("agreement", {"n": 10_000}, "pairs of nouns"),
        ("agreement", {"top": -1}, "top is -1"),
        ("agreement", {"n": 4, "heads": ["99.0"]}, "99"),
    ],
)
def test_what_cannot_be_asked_is_refused(task: str, options: dict, message: str, smollm2: Any, unchecked: None) -> None:
    with pytest.raises(InputError, match=message):
        interp.cue_competition(smollm2, task, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "message"), [("bert", "predicts the next word"), ("llama", "no tokenizer")])
def test_other_models_are_refused(named: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.cue_competition(named(name).model, "agreement")
