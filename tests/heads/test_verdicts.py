"""Each part of a verdict can fail by itself, and then says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.heads.base import finder
from interp.heads.verdicts import cutoffs_of, judge

PASSING = {
    "kind": "name_mover",
    "stack": "",
    "sublayer": "attn",
    "layer": 3,
    "head": 1,
    "score": 0.6,
    "writing": 1.2,
    "effect": 0.3,
    "control": 0.01,
    "p_corrected": 0.001,
    "mean": 0.25,
    "resample": 0.2,
    "denoise_effect": 0.01,
    "denoise_control": 0.0,
    "denoise_p_corrected": 1.0,
    "baseline": np.nan,
    "role": "",
}
DONE = {"tasks": {"ioi": {"is done": True}}}


def verdict(about=DONE, kind: str = "name_mover", **changed) -> tuple[str, str]:
    one = finder(kind)
    frame = pd.DataFrame([{**PASSING, "kind": kind, **changed}])
    verdicts, reasons, _ = judge([one], frame, pd.DataFrame([]), cutoffs_of([one], None), 0.05, about)
    return verdicts[0], reasons[0]


def test_a_head_whose_parts_all_pass_has_the_name_and_no_reason():
    assert verdict() == ("name_mover", "")


@pytest.mark.parametrize(
    ("changed", "expected", "reason"),
    [
        ({"score": 0.2}, "matters for ioi", "score 0.20 < 0.3"),
        ({"writing": -0.5}, "attends like name_mover", "writing -0.5 not ≥ 0"),
        ({"writing": 1e-9}, "attends like name_mover", "writes nothing that is read"),
        ({"writing": np.nan}, "attends like name_mover", "writing not measured"),
        ({"effect": 0.04}, "attends like name_mover", "effect 0.040 not ≥ 0.05"),
        ({"effect": np.nan}, "attends like name_mover", "not tested"),
        ({"control": 0.4}, "attends like name_mover", "no more than other heads of its layer (0.400)"),
        ({"control": np.nan}, "attends like name_mover", "no other head in its layer"),
        ({"p_corrected": 0.06}, "attends like name_mover", "p 0.06 > 0.05"),
        ({"p_corrected": np.nan}, "attends like name_mover", "p not reached"),
        ({"mean": 0.01, "resample": 0.02}, "attends like name_mover", "mean and resample below 0.05"),
        ({"score": 0.1, "effect": 0.0}, "", "score 0.10 < 0.3; effect 0.000 not ≥ 0.05"),
    ],
)
def test_each_part_can_fail_alone_and_is_named(changed, expected, reason):
    got, why = verdict(**changed)
    assert got == expected and reason in why


def test_one_ablation_is_enough_to_support_an_exchange():
    assert verdict(mean=0.0)[0] == "name_mover" and verdict(resample=0.0)[0] == "name_mover"


def test_what_only_denoising_shows_is_called_sufficient():
    weak = {"effect": 0.01, "mean": 0.0, "resample": 0.0}
    shown = {"denoise_effect": 0.3, "denoise_p_corrected": 0.001}
    assert verdict(**weak, **shown) == ("name_mover (sufficient)", "")
    assert verdict(**weak, **shown, denoise_control=0.5)[0] == "attends like name_mover"
    assert verdict(**weak, **{**shown, "denoise_p_corrected": 0.2})[0] == "attends like name_mover"


def test_the_sign_of_a_negative_head_is_turned_round():
    lower = {"writing": -1.0, "effect": -0.3, "control": -0.01, "mean": -0.2, "resample": -0.2}
    assert verdict(kind="negative_mover", **lower) == ("negative_mover", "")
    assert verdict(kind="negative_mover", **{**lower, "effect": 0.3})[0] == "attends like negative_mover"
    assert verdict(kind="negative_mover", **{**lower, "control": -0.5})[0] == "attends like negative_mover"


def test_a_role_stands_behind_the_name_and_a_margin_above_the_baseline_is_asked():
    facts = {"tasks": {"fact_recall": {"is done": True}}}
    assert verdict(facts, kind="fact_recall", role="subject", baseline=0.2)[0] == "fact_recall (subject)"
    about = {"tasks": {"coreference": {"is done": True}}}
    got, why = verdict(about, kind="coreference", score=0.75, baseline=0.7)
    assert got == "matters for coreference" and "not 0.1 above the baseline 0.70" in why


def test_a_task_that_is_not_done_or_prompts_that_cannot_tell_give_no_name():
    undone = {"tasks": {"ioi": {"is done": False, "clean − corrupt (95%)": [0.1, -1.0, 1.0]}}}
    assert verdict(undone) == ("", "cannot tell: the model does not do the task ioi (clean − corrupt 0.1)")
    got, why = verdict({**DONE, "problems": {"name_mover": "one side only"}})
    assert got == "attends like name_mover" and "one side only" in why


def test_writing_has_to_lie_on_its_side_with_its_whole_interval():
    got, why = verdict(writing_low=-0.1, writing_high=2.5)
    assert got == "attends like name_mover" and "writing 1.2 (-0.1 to 2.5) not surely ≥ 0" in why
    assert verdict(writing_low=0.1, writing_high=2.5) == ("name_mover", "")
    lower = {"writing": -1.0, "effect": -0.3, "control": -0.01, "mean": -0.2, "resample": -0.2}
    assert verdict(kind="negative_mover", **lower, writing_low=-2.0, writing_high=-0.1)[0] == "negative_mover"
    assert (
        verdict(kind="negative_mover", **lower, writing_low=-2.0, writing_high=0.1)[0] == "attends like negative_mover"
    )


def test_where_writing_is_not_asked_for_the_row_says_so():
    about = {"tasks": {"coreference": {"is done": True, "no logits": True}}}
    got, why = verdict(about, kind="coreference", score=0.9, baseline=0.5, writing=np.nan)
    assert got == "coreference" and why == "writing not asked for: the model has no logits"


def test_the_row_says_which_measure_decided():
    one = finder("name_mover")
    weak = {"effect": 0.01, "denoise_effect": 0.3, "denoise_p_corrected": 0.001}
    frame = pd.DataFrame([PASSING, {**PASSING, **weak}, {**PASSING, "effect": np.nan}])
    _, _, measures = judge([one], frame, pd.DataFrame([]), cutoffs_of([one], None), 0.05, DONE)
    assert measures == ["noise", "denoise", ""]
