"""Probes beside causes: heads that decode without an effect and the other way round are named; reports carry it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import InputError
from interp.report.results import Report
from interp.results import HeadScores
from probes.beside import BOTH, NEITHER, ONLY_CAUSED, ONLY_DECODED, OPEN, Beside, beside_causes


def results(scores: dict[tuple[int, int], float], target: str = "number") -> SimpleNamespace:
    rows = [
        {"target": target, "site": f"blocks.{layer}.attn.hook_z", "head": head, "score": score}
        | {"score_low": score - 0.05, "score_high": score + 0.05, "majority": 0.5}
        for (layer, head), score in scores.items()
    ]
    rows.append({**rows[0], "site": "blocks.0.hook_resid_pre", "head": np.nan})
    return SimpleNamespace(frame=pd.DataFrame(rows))


def heads(effects: dict[tuple[int, int], float], kind: str = "agreement") -> HeadScores:
    rows = [
        {"kind": kind, "stack": "", "sublayer": "attn", "layer": layer, "head": head, "score": 0.5, "verdict": ""}
        | {"effect": effect, "effect_low": effect - 0.02, "effect_high": effect + 0.02, "p_corrected": 0.01}
        for (layer, head), effect in effects.items()
    ]
    return HeadScores(pd.DataFrame(rows), pd.DataFrame(), {"model": "m"})


SCORES = {(0, 0): 0.99, (0, 1): 0.5, (1, 0): 0.95, (1, 1): 0.52, (2, 0): 0.9}
EFFECTS = {(0, 0): 0.0, (0, 1): 0.4, (1, 0): 0.3, (1, 1): 0.01}


@pytest.fixture
def beside() -> Beside:
    return beside_causes(results(SCORES), heads(EFFECTS))


def test_each_head_is_what_its_two_numbers_say(beside: Beside) -> None:
    said = dict(zip(beside.frame["head"], beside.frame["agreement"], strict=True))
    assert said == {"0.0": ONLY_DECODED, "0.1": ONLY_CAUSED, "1.0": BOTH, "1.1": NEITHER}
    assert set(beside.disagreements["head"]) == {"0.0", "0.1"}
    words = " ".join(beside.words)
    assert "decodable but no effect (1): 0.0 (decoded 0.99, effect +0.00)" in words
    assert "effect but not decodable (1): 0.1" in words
    assert "4 heads; 1 more were probed" in words


def test_a_head_that_works_against_the_behaviour_has_an_effect() -> None:
    scores = heads({**EFFECTS, (1, 1): -0.3})
    scores.frame.loc[3, "p_corrected"] = 1.0  # no harm to be found there
    said = beside_causes(results(SCORES), scores).frame.set_index("head")["agreement"]
    assert said["1.1"] == ONLY_CAUSED
    scores.frame.loc[1, "p_corrected"] = 0.4  # as large as before, but not beyond chance: that is not "no effect"
    assert beside_causes(results(SCORES), scores).frame.set_index("head")["agreement"]["0.1"] == OPEN


def test_a_verdict_of_the_sweep_goes_before_the_interval() -> None:
    found = results(SCORES)
    found.frame["verdict"] = ["not decodable", "decodable", "cannot tell", "", "decodable", ""]
    said = beside_causes(found, heads(EFFECTS)).frame.set_index("head")["agreement"]
    assert said.to_dict() == {"0.0": NEITHER, "0.1": BOTH, "1.0": OPEN, "1.1": NEITHER}


def test_the_rank_correlation_is_of_ranks_and_has_an_interval() -> None:
    many = {(layer, head): 0.5 + 0.004 * (10 * layer + head) for layer in range(10) for head in range(10)}
    same = beside_causes(results(many), heads({key: (score - 0.5) ** 3 for key, score in many.items()}))
    row = same.correlations.iloc[0]
    assert row["rho"] == pytest.approx(1) and row["rho_low"] > 0.99 and row["n_heads"] == 100
    generator = np.random.default_rng(0)
    loose = beside_causes(results(many), heads({key: float(generator.normal()) for key in many})).correlations.iloc[0]
    assert loose["rho_low"] < 0 < loose["rho_high"] and abs(loose["rho"]) < 0.35


def test_it_is_saved_shown_and_drawn(beside: Beside, tmp_path) -> None:
    back = Beside.load(beside.save(tmp_path / "beside"))
    assert back.frame.equals(beside.frame) and back.words == beside.words and str(back) == str(beside)
    page = beside.to_html(tmp_path / "page.html").read_text()
    assert "Plotly.newPlot" in page and "effect but not decodable" in page
    assert "<table>" in beside._repr_html_()
    texts = [name for trace in beside.plot().data for name in trace.text]
    assert "0.0" in texts and "0.1" in texts and "1.1" not in texts
    with pytest.raises(InputError, match="no 'x' beside"):
        beside.plot("x")


def test_what_cannot_be_laid_together_is_refused() -> None:
    with pytest.raises(InputError, match="no kind 'induction'"):
        beside_causes(results(SCORES), heads(EFFECTS), kinds=["induction"])
    with pytest.raises(InputError, match="No head was both"):
        beside_causes(results(SCORES), heads({(5, 5): 0.1}))
    only_resid = SimpleNamespace(frame=results(SCORES).frame.tail(1))
    with pytest.raises(InputError, match="hold no heads"):
        beside_causes(only_resid, heads(EFFECTS))
    with pytest.raises(InputError, match="no column 'target'"):
        beside_causes(SimpleNamespace(frame=pd.DataFrame({"x": [1]})), heads(EFFECTS))


def test_the_report_carries_it_and_brings_it_back(beside: Beside, tmp_path) -> None:
    made = interp.planted.make("ioi", n=12)
    pairs = {"abc": made.pairs["abc"]}
    scores = interp.find_heads(made.model, ["name_mover"], pairs=pairs, n=12)
    report = interp.report(made.model, found=scores, pairs=pairs, beside=beside)
    back = Report.load(report.save(tmp_path / "report"))
    for one in (report, back):
        text = one.to_markdown()
        assert f"## {Beside.heading}" in text and "effect but not decodable" in text
        assert "Plotly" not in text and "'figure'" not in text
        page = one.to_html(tmp_path / "report.html").read_text()
        assert "Plotly.newPlot" in page and Beside.heading in page
    assert back.to_markdown() == report.to_markdown()
    plain = interp.report(made.model, found=scores, pairs=pairs)
    assert "<script" not in plain.to_html(tmp_path / "plain.html").read_text()
    assert "beside" not in plain.about


@pytest.mark.parametrize(("given", "match"), [(3, "no heading"), ("twice", "two sections called")])
def test_the_report_takes_only_what_tells_of_itself(beside: Beside, given: object, match: str) -> None:
    from interp.report.results import sections_of

    with pytest.raises(InputError, match=match):
        sections_of([beside, beside] if given == "twice" else given)
