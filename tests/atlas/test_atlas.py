"""What an atlas says of planted models is what was planted; of one that was never trained it says nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import interp
from interp.atlas.results import Atlas
from interp.atlas.stability import resample
from interp.errors import InputError, StorageError
from interp.heads import find
from interp.results.heads import head_of
from interp.runs.store import RunStore
from tests.atlas.conftest import IOI, pairs_of


def test_each_planted_head_is_what_it_was_planted_to_be_and_no_other_is_named(made):
    named = made.heads.loc[made.heads["n_kinds"] > 0].set_index("address")
    assert named["is"].to_dict() == {"1.2": "s_inhibition", "2.1": "name_mover"}
    kinds = made.kinds.set_index("kind")["named"]
    assert kinds["name_mover"] == "2.1" and kinds["s_inhibition"] == "1.2" and kinds["negative_mover"] == ""


def test_the_named_heads_together_carry_the_whole_task_and_random_ones_nothing(made):
    together = made.together.set_index("direction")
    for direction in ("noise", "denoise"):
        row = together.loc[direction]
        assert row["task"] == "ioi" and row["heads"] == "1.2 2.1" and row["n_items"] == 12
        assert row["effect"] == pytest.approx(1, abs=1e-5) and row["effect_low"] == pytest.approx(1, abs=1e-5)
    rest = made.unexplained.set_index("behaviour").loc["ioi"]
    assert rest["left"] == pytest.approx(0, abs=1e-5) and rest["named"] == 2
    assert "name_mover" in rest["kinds"] and rest["cannot tell"] == ""


def test_a_head_that_matters_and_that_no_kind_names_stays_unexplained(names):
    found = interp.atlas(names.model, ["name_mover"], pairs=pairs_of(names), n=12)
    (rest,) = found.unexplained.to_dict("records")
    matter = found.heads.set_index("address")["matters for"]
    assert rest["named"] == 1 and "0.1" in rest["heads that matter and are not named"].split()
    assert set(rest["heads that matter and are not named"].split()) == {one for one in matter.index if matter[one]}
    assert matter["0.1"] == "ioi" and matter["2.1"] == ""


def test_every_head_is_counted_once(made, names):
    counts = made.counts()
    assert counts.pop("heads") == 12 == sum(counts.values())
    assert counts["named"] == 2


def test_of_an_untrained_model_nothing_is_named_and_it_is_said_that_the_task_is_not_done(untrained, names):
    found = interp.atlas(untrained, IOI, pairs=pairs_of(names), n=12)
    assert found.counts()["named"] == 0 and not len(found.together)
    (rest,) = found.unexplained.loc[found.unexplained["behaviour"] == "ioi"].to_dict("records")
    assert rest["cannot tell"].startswith("cannot tell: the model does not do the task ioi")
    assert "None." in found.to_markdown()


def test_p_are_corrected_over_all_kinds_of_the_atlas(names):
    kinds = [["name_mover"], ["name_mover", "induction", "sink"]]
    few, many = (interp.atlas(names.model, one, pairs=pairs_of(names), n=12).scores for one in kinds)
    once, thrice = (one.of("name_mover").set_index(["layer", "head"])["p_corrected"].dropna() for one in (few, many))
    assert thrice.to_dict() == pytest.approx((once * 3).clip(upper=1).to_dict()) and (once < 1 / 3).any()


def test_the_kept_items_are_what_lies_behind_every_mean(made):
    items = made.scores.items
    assert set(items["kind"]) == set(made.scores.kinds)
    means = items.groupby(["kind", "layer", "head", "measure"])["value"].mean()
    checked = 0
    for row in made.scores.frame.to_dict("records"):
        at = (row["kind"], row["layer"], row["head"])
        names = {"score": "score", "writing": "writing", "ablation": "effect"}
        names |= {name: name for name in ("noise", "denoise", "mean", "resample", "path") if name in row}
        for measure, column in names.items():
            if (*at, measure) in means.index:
                assert means[(*at, measure)] == pytest.approx(row[column], abs=1e-9), (at, measure)
                checked += 1
        assert math.isnan(row["effect"]) or (*at, "score") in means.index
    assert checked > 100


def test_every_named_head_is_resampled_also_of_a_kind_that_is_named_without_a_test(untrained, names):
    limits = {"sink": {"score": 0.01, "writing": 1e9}}
    found = interp.find_heads(untrained, "sink", pairs=pairs_of(names), top=1, cutoffs=limits)
    named = {head_of(row) for row in found.frame.to_dict("records") if row["verdict"] == "sink"}
    assert len(named) > found.frame["effect"].notna().sum()
    again = resample(found, "sink")
    assert again.named == named and set(again.again) == {head_of(row) for row in found.frame.to_dict("records")}


def test_an_atlas_is_saved_loaded_stored_and_written_alike(made, tmp_path):
    again = Atlas.load(made.save(tmp_path / "atlas"))
    assert again.to_markdown() == made.to_markdown() and again.about == made.about
    store = RunStore(tmp_path / "runs")
    run = store.save(made, spec={}, title="atlas")
    assert run.info.kind == "atlas" and store.open(run.info.id).results().to_markdown() == made.to_markdown()
    page = made.to_html(tmp_path / "atlas.html").read_text()
    assert "s_inhibition" in page and "What remains unexplained" in page and "src=" not in page.split("<body")[1][:200]
    (tmp_path / "atlas" / "together.parquet").write_bytes(b"damaged")
    with pytest.raises(StorageError, match="Cannot read the tables"):
        Atlas.load(tmp_path / "atlas")


def test_a_kind_that_scores_no_head_is_left_out_and_says_why(names):
    found = interp.atlas(names.model, ["backup", "s_inhibition"], n=12)
    assert found.scores.kinds == ["s_inhibition"] and "no name mover" in found.about["left_out"]["backup"]
    assert "left out: no name mover" in found.kinds.set_index("kind").loc["backup", "problem"]
    with pytest.raises(InputError, match="backup: no name mover was found"):
        interp.atlas(names.model, "backup", n=12)


def test_drawing_asks_for_what_there_is(made):
    grid = np.array(made.plot().data[0].z, dtype=float)
    assert grid[1, 2] == grid[2, 1] == 1 and np.nansum(grid) == 2
    assert made.plot("overlap").data[0].z is not None and made.plot("name_mover").data
    with pytest.raises(InputError, match='"heads", "overlap" and'):
        made.plot("nonsense")


def test_the_same_call_goes_on_from_what_was_kept(names, tmp_path, monkeypatch):
    asked = {"pairs": pairs_of(names), "n": 12, "keep": tmp_path / "kept"}
    first = interp.atlas(names.model, IOI, **asked)
    monkeypatch.setattr(find, "run_trial", lambda *_, **__: pytest.fail("measured again"))
    again = interp.atlas(names.model, IOI, **asked)
    assert again.heads.equals(first.heads) and again.scores.items.equals(first.scores.items)
    assert interp.atlas(names.model, found=first.scores, pairs=pairs_of(names)).heads.equals(first.heads)


def test_what_cannot_be_done_is_said(names, made, untrained, tmp_path):
    (tmp_path / "file").write_text("")
    other = {"found": made.scores}
    for model, options, said in (
        ("smollm2", {}, "Load it first"),
        (names.model, {"rigor": "hasty"}, "quick or full"),
        (names.model, {"keep": tmp_path / "file"}, "is a file"),
        (names.model, {"kinds": "nonsense"}, "no kind of head called 'nonsense'"),
        (untrained, other, "Give the model that they were found in"),
    ):
        with pytest.raises(InputError, match=said):
            interp.atlas(model, **options)


def test_scores_that_were_found_must_fit_what_is_asked_of_them(names, made):
    pairs, scores = pairs_of(names), made.scores
    old = replace(scores, about={key: value for key, value in scores.about.items() if key != "per_item"})
    for found, given, said in (
        (scores, None, "Give the same pairs= again"),  # what is measured besides would be of other prompts
        (old, pairs, "do not say their per_item"),
        ("heads", pairs, "found is str"),
    ):
        for call in (interp.atlas, interp.report):
            with pytest.raises(InputError, match=said):
                call(names.model, found=found, pairs=given)


def test_hostile_names_are_text_on_every_page(made, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    said = {**made.scores.about, "model": hostile, "problems": {"backup": hostile}}
    other = Atlas(replace(made.scores, about=said), made.together, {**made.about, "model": hostile, "caveat": hostile})
    page = other.to_html(tmp_path / "page.html").read_text()
    for text in (page, other._repr_html_(), other.compare(made)._repr_html_()):
        assert hostile not in text and "&lt;img" in text
    assert hostile not in other.to_markdown()


def test_progress_ends_with_all_of_it_done(names):
    from interp.atlas.whole import WHOLE

    seen = []
    interp.atlas(names.model, IOI, pairs=pairs_of(names), n=12, progress=lambda *said: seen.append(said))
    shares = [done / total for stage, done, total in seen if stage == WHOLE]
    assert shares == sorted(shares) and shares[-1] == 1 and shares[0] < 0.2


def test_addresses_of_heads_are_those_of_the_scores(made):
    every = {head_of(row) for row in made.scores.frame.to_dict("records")}
    assert set(made.heads["address"]) <= every
