"""Which came first over several trainings, and results that are kept, drawn and told."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import interp
from interp.dynamics import Emergence, Order, order, recipe, train
from interp.dynamics.ordering import sign_test
from interp.errors import InputError, StorageError
from interp.runs.store import RunStore

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = [0, 1, 3, 7, 15, 31, 63]


def made(seed: int, early: int, late: int) -> Emergence:
    """A training in which `early` jumps before checkpoint number `early` and `late` before `late`; `still` stays."""
    rows, changes = [], []
    for name, at in (("early", early), ("late", late), ("still", 99)):
        values = [float(i >= at) for i in range(len(STEPS))]
        numbers = [
            {"step": step, "measure": "m", "series": name, "value": x} for step, x in zip(STEPS, values, strict=True)
        ]
        rows += [{**one, "low": one["value"], "high": one["value"]} for one in numbers]
        moved = at < len(STEPS)
        step = 2.0 ** (at - 0.5) - 1 if moved else np.nan
        line = {"measure": "m", "series": name, "start": 0.0, "end": float(moved), "step": step, "octaves": 0.8}
        line |= {"step_low": step, "step_high": step, "left": float(STEPS[at]) if moved else np.nan}
        changes.append(line | {"at_10": step, "loss_share": np.nan, "loss_at": np.nan})
    about = {"training": {"recipe": "toy", "seed": seed, "steps": 63}, "model": f"toy seed {seed}", "n": 8, "loss": "x"}
    return Emergence(pd.DataFrame(rows), pd.DataFrame(changes), about)


def test_what_always_comes_first_is_said_to_once_there_are_enough_trainings() -> None:
    six = order([made(seed, 2, 3 + seed % 3) for seed in range(6)], onsets=[0.1, "left"])
    row = six.pairs.set_index(["first", "second", "onset"]).loc[("m, early", "m, late", "10%")]
    assert (row["n"], row["before"], row["after"], row["verdict"]) == (6, 6, 0, "before")
    assert row["p"] == pytest.approx(2 / 2**6) and 1 <= row["low"] <= row["octaves"] <= row["high"] <= 3
    swapped = order([made(seed, 2, 3) for seed in range(6)], [("m", "late"), ("m", "early")], onsets=["left"])
    assert swapped.pairs["verdict"].tolist() == ["after"] and swapped.pairs["octaves"].tolist() == [-1.0]


def test_few_or_split_trainings_settle_nothing() -> None:
    four = order([made(seed, 2, 3) for seed in range(4)], onsets=[0.5])
    assert set(four.pairs["verdict"]) == {"cannot tell: 4 trainings", "cannot tell: 0 trainings"}
    five = order([made(seed, 2, 3) for seed in range(5)], onsets=[0.5]).pairs.iloc[0]
    assert five["verdict"] == "not settled" and five["p"] == pytest.approx(0.0625)
    split = order([made(seed, 3, 2 + 2 * (seed % 2)) for seed in range(6)], onsets=[0.5]).pairs.iloc[0]
    assert (split["before"], split["after"], split["p"], split["verdict"]) == (3, 3, 1.0, "not settled")
    tied = order([made(seed, 3, 3) for seed in range(6)], onsets=["left"]).pairs.iloc[0]
    assert tied["tied"] == 6 and np.isnan(tied["p"])


def test_the_sign_test_is_the_exact_binomial_one() -> None:
    for n in range(1, 9):
        for k in range(n + 1):
            observed = comb(n, k)
            exact = sum(comb(n, i) for i in range(n + 1) if comb(n, i) <= observed) / 2**n
            assert sign_test(k, n - k) == pytest.approx(min(1.0, exact))


def test_the_interval_of_the_median_holds_it_as_often_as_it_says() -> None:
    row = order([made(seed, 2, 3 + seed % 3) for seed in range(6)], onsets=[0.5]).pairs.iloc[0]
    assert row["confidence"] == pytest.approx(1 - 2 / 2**6) and (row["low"], row["high"]) == (1.0, 3.0)


def test_what_is_no_comparison_is_refused() -> None:
    one, two = made(0, 2, 3), made(1, 2, 3)
    other = dataclasses.replace(two, about={**two.about, "training": {"recipe": "b", "seed": 1, "steps": 63}})
    for given, options, words in (
        ([one], {}, "this is 1"),
        (one, {}, "this is 1"),
        ([one, one], {}, "Seed 0 is given twice"),
        ([one, other], {}, "different recipes: b of 63 steps, toy of 63 steps"),
        ([one, two], {"series": [("m", "early"), ("m", "gone")]}, "m, gone was not measured in every"),
        ([one, two], {"series": [("m", "early")]}, "takes two series"),
        ([one, two], {"onsets": [2.0]}, "2.0 is no onset"),
        ([one, two], {"onsets": ["start"]}, "'start' is no onset"),
    ):
        with pytest.raises(InputError, match=words):
            order(given, **options)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Emergence:
    root = tmp_path_factory.mktemp("small")
    small = dataclasses.replace(recipe("copy"), steps=2)
    return interp.emergence(train(small, out=Path(root) / "a", per_octave=1), n=8, ablate_at=[2], top=1)


def test_results_are_kept_as_they_are(grown, tmp_path: Path) -> None:
    grown.save(tmp_path / "kept")
    back = Emergence.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(back.scores, grown.scores)
    pd.testing.assert_frame_equal(back.changes, grown.changes)
    pd.testing.assert_frame_equal(back.ablations, grown.ablations, check_dtype=False)
    assert back.about["training"] == grown.about["training"] and back.summary().equals(grown.summary())
    run = RunStore(tmp_path / "runs").save(grown, spec={"analysis": "emergence"})
    assert run.info.kind == "emergence" and isinstance(run.results(), Emergence)
    both = order([made(seed, 2, 3) for seed in range(2)])
    both.save(tmp_path / "order")
    assert Order.load(tmp_path / "order").pairs.equals(both.pairs)
    assert RunStore(tmp_path / "runs").save(both, spec={}).info.kind == "emergence_order"
    with pytest.raises(StorageError, match="no emergence of format"):
        Emergence.load(tmp_path / "order")


def test_a_page_needs_nothing_else_and_draws_every_series_once(grown, tmp_path: Path) -> None:
    figure = grown.plot()
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert len(lines) == len(grown.changes)
    assert all(list(trace.customdata) == grown.steps and trace.x[0] == 1 for trace in lines)
    page = grown.to_html(tmp_path / "page.html").read_text()
    assert "Heads set to their mean together" in page and "src=" not in page.split("</script>")[-1]
    assert "What came" not in page and grown.leaves_out.split(".")[0] in page
    assert len(order([made(seed, 2, 3) for seed in range(6)]).to_html(tmp_path / "o.html").read_text()) > 10_000


def test_the_summary_stands_in_the_order_of_dates_and_has_none_for_what_stayed() -> None:
    table = made(0, 2, 4).summary()
    assert table["series"].tolist() == ["m, early", "m, late", "m, still"]
    assert table["halfway (95%)"].tolist()[-1].startswith("–")
    dates = made(0, 2, 4).changes["step"].dropna().tolist()
    assert all(a < b for a, b in pairwise(dates))
    assert order([made(seed, 2, 4) for seed in range(2)]).dates("50%").loc["m, early", "seed 1"] == pytest.approx(
        dates[0], rel=1e-6
    )


@pytest.mark.slow
def test_in_every_seed_induction_takes_its_known_route_and_the_control_does_not(tmp_path: Path) -> None:
    found = [interp.emergence(train("induction", out=tmp_path / f"{seed}", seed=seed)) for seed in (0, 1)]
    control = interp.emergence(train("induction-one-layer", out=tmp_path / "control"))
    for one in found:
        ends = one.changes.set_index(["measure", "series"])["end"]
        assert ends["loss", "repeat"] < 0.2 and ends["induction", "best"] > 0.8
        assert ends["patch", "attn_out.0"] > 0.9 and ends["patch", "attn_out.1"] > 0.9  # both layers have to
        assert ends["patch", "best head of layer 0"] > 0.5 and ends["K-composition", "best"] > 0.05
        drop = one.changes.set_index(["measure", "series"]).loc["induction", "sum"]
        assert drop["loss_share"] > 0.4
        assert control.series("induction", "sum").iloc[-1] < 0.5 * ends["induction", "sum"]
    assert "patch" in control.about["left_out"] and control.series("loss", "repeat").iloc[-1] > 2.5
    pair = order(found, [("previous_token", "sum"), ("induction", "sum")], onsets=[0.25])
    assert pair.pairs["verdict"].tolist() == ["cannot tell: 2 trainings"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facts", "coreference", "reversal", "copy"])
def test_in_every_seed_what_decides_takes_the_known_route(name: str, tmp_path: Path) -> None:
    known = {"reversal": "decoder.cross_attn_out.0", "copy": "attn_out.0"}.get(name, "attn_out.1")
    for seed in (0, 1):
        found = interp.emergence(train(name, out=tmp_path / f"{seed}", seed=seed))
        assert found.series("patch", known).iloc[-1] > 0.9 and abs(found.series("patch", known)[0]) < 0.1
        if name == "reversal":
            assert found.series("patch", "decoder.attn_out.0").abs().max() < 0.05
            assert found.series("mirror", "sum").iloc[-1] > 2 * 4 * found.about["uniform"]["mirror"]
