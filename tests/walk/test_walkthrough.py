"""The walk from a prompt to its answer: figures that are those of the methods, and verdicts that can go either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import InputError
from interp.results.walkthrough import VERDICTS, Walkthrough
from interp.runs.store import RunStore
from interp.walk import flow
from interp.walk.setting import Outcome, decide, make_setting
from tests.browser.serving import HOSTILE, tiny_model

CASE = ("The capital of France is", " Paris", " London", "The capital of England is")
NAN = float("nan")


SMALL = ("the cat sat on", "mat", "cat", "the mat sat on")


@pytest.fixture(scope="module")
def walk() -> Walkthrough:
    return interp.walkthrough(tiny_model(), *SMALL)


def _tiny(**options: Any) -> Walkthrough:
    text, other = f"the {HOSTILE[0]} sat on", f"the {HOSTILE[2]} sat on"
    return interp.walkthrough(tiny_model(), text, "mat", "cat", other, **options)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (Outcome(0.3), "supports"),
        (Outcome(0.1), "contradicts"),
        (Outcome(NAN), "not measured"),
        (Outcome(0.3, 0.3, 0.1, 0.5, 8), "supports"),
        (Outcome(0.3, 0.3, -0.1, 0.5, 8), "cannot tell"),
        (Outcome(0.1, 0.3, 0.1, 0.5, 8), "cannot tell"),
        (Outcome(0.3, 0.1, 0.05, 0.15, 8), "contradicts"),
    ],
)
def test_verdicts_follow_from_the_numbers(one: Outcome, verdict: str) -> None:
    assert decide(one, 0.2) == verdict


def test_the_steps_are_numbered_and_each_has_a_claim_an_intervention_and_a_verdict(walk: Walkthrough) -> None:
    table = walk.to_frame()
    assert table["step"].tolist() == list(range(1, len(table) + 1)) and len(table) >= 14
    assert set(table["verdict"]) <= set(VERDICTS) and "not measured" not in set(table["verdict"])
    for name in ("title", "claim", "intervention", "said"):
        assert (table[name].str.len() > 5).all()


def test_its_figures_are_those_of_the_methods(walk: Walkthrough) -> None:
    model, (text, answer, foil, corrupt) = tiny_model(), SMALL
    pairs = interp.PromptPairs.from_text(model, text, corrupt, answer, foil, positions={"subject": 1})
    sweep = interp.patch(
        model, pairs, "z", over=("layer", "head"), direction="noise", at={"pos": "read"}, progress=False
    ).mean(normalize="pooled")
    best = np.unravel_index(int(sweep.values.argmax()), sweep.shape)
    head = f"{best[0]}.{best[1]}"
    assert walk.about["movers"][0] == head
    heads = walk.details.loc[walk.details["what"] == "head exchanged"].set_index("place")["value"]
    assert heads.max() == heads[head] == pytest.approx(float(sweep.max()), abs=1e-4)
    cut = interp.knockout(model, pairs, "read", "subject", heads=[head], over=(), progress=False)
    by_title = walk.steps.set_index("title")["here"]
    assert by_title[f"{head} looks at the subject"] == pytest.approx(
        float(cut.values.squeeze() / (cut.source - cut.base)[0]), abs=1e-4
    )
    ranks = walk.details.loc[walk.details["what"] == "lens rank", "value"]
    curve = interp.lens(model, text, pins=[answer]).curve(answer)
    assert ranks.tolist() == curve["rank"].tolist()


@pytest.mark.slow
def test_the_shipped_walk_finds_one_head_that_brings_the_capital(smollm2: Any) -> None:
    found = interp.walkthrough(smollm2)
    assert found.about["movers"][0] == "23.4" and "not measured" not in set(found.steps["verdict"])
    verdicts = found.steps.set_index("title")["verdict"]
    assert verdicts["So the match makes the answer"] == "contradicts"


def test_a_model_that_says_otherwise_contradicts(smollm2: Any) -> None:
    text, answer, foil, corrupt = CASE
    at = make_setting(smollm2, text, foil, answer, corrupt, None, 16, 0)
    assert flow.behaviour(at).row(1)["verdict"] == "contradicts"


def test_other_prompts_give_intervals_over_items() -> None:
    model, words = tiny_model(), ["cat", "on", "a"]
    texts, turned = ([f"the {one} sat on" for one in some] for some in (words, words[1:] + words[:1]))
    others = interp.PromptPairs.from_text(model, texts, turned, words, words[1:] + words[:1], positions={"subject": 1})
    at = make_setting(model, *SMALL, others, 16, 0)
    row = flow.behaviour(at).row(1)
    assert row["n"] == 3 and row["low"] <= row["mean"] <= row["high"]
    share = flow.early(at).outcome
    effects = at.found["residual"][1].mean(normalize="pooled").sel(layer=at.third, position="subject:last")
    assert share.mean == pytest.approx(float(effects), abs=1e-6)


@pytest.mark.slow
def test_capitals_leave_out_the_walked_ones_and_choose_no_head(smollm2: Any) -> None:
    at = make_setting(smollm2, *CASE, "capitals", 8, 0)
    assert at.others is not None and len(at.others) == 8 and len(set(at.others.items)) == 8
    assert not {at.case.answer[0], at.case.foil[0]} & set(at.others.answer)
    for i in range(8):
        clean, corrupt = at.others.clean[i], at.others.corrupt[i]
        apart = {k for k, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b}
        assert apart and apart <= set(at.others.span("subject", i)), "only the country differs"


def test_it_is_stored_and_shows_tokens_as_text(tmp_path: Path) -> None:
    found = _tiny()
    run = RunStore(tmp_path / "runs").save(found, spec={"analysis": "walkthrough", "model": "tiny"})
    back = run.results()
    assert run.info.kind == "walkthrough" and repr(back) == repr(found)
    pd.testing.assert_frame_equal(back.steps, found.steps)
    page = found.to_html(tmp_path / "page.html").read_text("utf-8")
    for html in (page, found._repr_html_()):
        assert "<img" not in html and "<script>alert" not in html and "Heads were" in html
    text = found.to_markdown("interp walkthrough tiny")
    assert "<img" not in text.replace("\\<img", "") and "Made by `interp walkthrough tiny`" in text
    assert text.count("\n## ") == len(found.steps) and len(found.plot().data) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupt": CASE[0]}, "are the same"),
        ({"text": "the cat", "corrupt": "the mat"}, "differ in their last token"),
        ({"answer": "the mat"}, "one token each"),
        ({"others": "capital"}, "others is 'capital'"),
        ({"n": 1}, "n is 1"),
    ],
)
def test_what_cannot_be_walked_is_refused(changes: dict, message: str, monkeypatch: Any) -> None:
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    given = {"text": "the cat sat on", "answer": "mat", "foil": "cat", "corrupt": "the mat sat on"} | changes
    if message == "are the same":
        given["corrupt"] = given["text"]
    with pytest.raises(InputError, match=message):
        interp.walkthrough(tiny_model(), **given)
