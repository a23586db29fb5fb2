"""Interventions along a probe's direction: as whole passes under hooks say, and a verdict as planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import interp
import probes
from interp.errors import InputError, StorageError
from interp.runs.kinds import register_kind
from probes.data import Place
from probes.erasure import LEACE
from probes.flips import erasers
from probes.used import Use, test_use
from tests.causal.conftest import model_named, pairs_for
from tests.model.conftest import _one_thread, unchecked
from tests.probes.standing import both_runs, found_in, rows_of

__all__ = ["_one_thread", "unchecked"]  # fixtures of tests/model that hold here too

PLANTED = interp.planted.make("agreement", n=24)
PAIRS = PLANTED.pairs["subject"]
SINGULAR = PAIRS.answer[0]
NUMBER = ["one" if answer == SINGULAR else "several" for answer in PAIRS.answer]
OTHER = ["several" if one == "one" else "one" for one in NUMBER]


def planted_at(site: str, position: str, head: int | None = None, **changes: object):
    """A probe of the subject's number at a place of the planted model, fitted on both runs."""
    prompts, at = both_runs(PAIRS, position)
    dataset = rows_of(PLANTED.model, prompts, at, [*NUMBER, *OTHER], site)
    return found_in(dataset, Place(next(iter(dataset.activations)), head), **changes)


def share(use: Use, intervention: str, control: str = "", dose: float | None = None) -> float:
    rows = use.frame.loc[(use.frame["intervention"] == intervention) & (use.frame["control"] == control)]
    rows = rows if dose is None else rows.loc[rows["dose"] == dose]
    assert len(rows) == 1
    return float(rows["effect"].iloc[0])


@pytest.fixture(scope="module")
def used() -> Use:
    found = planted_at("resid_pre.1", "subject:last")
    return test_use(found, PLANTED.model, PAIRS, position="subject:last", wrong_position="END", n_random=5)


def test_at_the_subject_the_planted_number_is_used(used: Use) -> None:
    assert used.verdict == "decodable and used here"
    for dose in (-2, -1, 0.5, 1, 2):  # the readout is linear in the number that stands there
        assert share(used, "steer", dose=dose) == pytest.approx(dose, abs=1e-3)
    assert share(used, "steer", dose=0) == pytest.approx(0, abs=1e-6)
    assert share(used, "swap") == pytest.approx(1, abs=1e-3)
    assert share(used, "ablate") == pytest.approx(0.5, abs=1e-3)  # neither one nor several
    assert share(used, "leace") == pytest.approx(0.5, abs=1e-3)
    assert share(used, "interchange") == pytest.approx(1, abs=1e-3)
    # The last token sees its own residual there, but reads numbers at nouns only.
    assert share(used, "steer", "wrong position", 1) == pytest.approx(0, abs=1e-3)
    assert abs(share(used, "steer", "random directions", 1)) < 0.3


def test_a_decoy_head_writes_the_number_where_nothing_reads_it() -> None:
    for head, verdict in ((0, "decodable, not used here"), (1, "decodable and used here")):
        found = planted_at("z.1", "END", head)
        use = test_use(found, PLANTED.model, PAIRS, position="END", wrong_position="subject:last", n_random=3)
        assert use.verdict == verdict
        assert share(use, "steer", dose=1) == pytest.approx(head, abs=1e-3)
        assert set(use.frame.loc[use.frame["intervention"] == "interchange", "place"]) == {
            f"z.1.{head}",
            "resid_post.1",
        }


def test_the_same_direction_in_a_layer_behind_the_reader_does_nothing(used: Use) -> None:
    found = planted_at("resid_post.0", "subject:last")
    use = test_use(
        found, PLANTED.model, PAIRS, position="subject:last", wrong_position=None, other_layers=[1], n_random=2
    )
    assert share(use, "steer", "layer 1", 1) == 0.0  # behind the last layer nothing but the end is read
    assert share(use, "steer", dose=1) == pytest.approx(1, abs=1e-3)
    assert "wrong position" not in set(use.frame["control"]) and use.verdict == "decodable and used here"


def test_what_a_sweep_found_is_tested_as_it_is() -> None:
    prompts, at = both_runs(PAIRS, "subject:last")
    data = rows_of(PLANTED.model, prompts, at, [*NUMBER, *OTHER], "resid_pre.1")
    types = [str(prompt[pos]) for prompt, pos in zip(prompts, at, strict=True)]
    data.table["type"] = data.table["group"] = types
    found = probes.sweep(data, "difference").at("resid_pre.1", "number")
    use = test_use(found, PLANTED.model, PAIRS, position="subject:last", wrong_position="END", n_random=3, doses=(1,))
    assert use.verdict == "decodable and used here" and str(found.row["why"])[:12] in use.sentence
    assert share(use, "steer", dose=1) == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_decoded_or_told_is_said_so() -> None:
    found = planted_at("resid_pre.1", "subject:last")
    where = {"position": "subject:last", "wrong_position": "END", "n_random": 2, "doses": (1,)}
    chance = replace(found, row={**found.row, "score": 0.52, "score_low": 0.45, "score_high": 0.6})
    assert test_use(chance, PLANTED.model, PAIRS, **where).verdict == "not decodable"
    unknown = test_use(replace(found, row={}), PLANTED.model, PAIRS, **where)
    assert unknown.verdict == "cannot tell" and "does not say how well" in unknown.sentence
    few = test_use(found, PLANTED.model, PAIRS[:4], **where)
    assert few.verdict == "cannot tell" and "4 items" in few.sentence
    single = test_use(found, PLANTED.model, PAIRS[:1], **where)
    assert single.verdict == "cannot tell" and np.isnan(single.frame["low"]).all()
    wrong = replace(PAIRS, answer=PAIRS.foil, foil=PAIRS.answer)
    absent = test_use(found, PLANTED.model, wrong, **where)
    assert absent.verdict == "cannot tell" and "does not do the task" in absent.sentence


def test_a_direction_that_does_no_more_than_random_ones_is_not_called_used() -> None:
    found = planted_at("resid_pre.1", "subject:last")
    along = np.random.default_rng(0).normal(size=found.means.shape[1])
    along /= np.linalg.norm(along)
    made = replace(found, direction=along, means=np.stack([0 * along, 4 * along]), threshold=2.0, dataset=None)
    use = test_use(
        made, PLANTED.model, PAIRS, position="subject:last", wrong_position="END", labels=NUMBER, n_random=10
    )
    assert use.verdict != "decodable and used here"
    assert "carries no activations" in use.about["not_erased"]
    assert not set(use.frame["intervention"]) & {"leace", "inlp"}


def test_without_activations_the_direction_is_set_to_the_mean_of_the_class_means() -> None:
    found = replace(planted_at("resid_pre.1", "subject:last"), dataset=None)
    use = test_use(found, PLANTED.model, PAIRS, position="subject:last", wrong_position="END", n_random=1, doses=(1,))
    assert share(use, "ablate") == pytest.approx(0.5, abs=1e-3)


def test_the_class_of_a_pair_is_what_the_probe_reads_or_what_is_given(used: Use) -> None:
    assert used.about["pairs_by_own_class"] == {"one": 12, "several": 12}
    found = planted_at("resid_pre.1", "subject:last")
    where = {"position": "subject:last", "wrong_position": "END", "n_random": 1, "doses": (1,)}
    given = test_use(found, PLANTED.model, PAIRS, labels=NUMBER, **where)
    assert given.about["read_in_clean"] == 1.0
    assert share(given, "steer", dose=1) == pytest.approx(share(used, "steer", dose=1))
    upside_down = test_use(found, PLANTED.model, PAIRS, labels=OTHER, **where)
    assert share(upside_down, "steer", dose=1) == pytest.approx(-1, abs=1e-3)


def test_results_go_to_a_folder_and_back(used: Use, tmp_path) -> None:
    used.save(tmp_path / "use")
    back = Use.load(tmp_path / "use")
    assert back.frame.equals(used.frame) and back.contrasts.equals(used.contrasts) and back.items.equals(used.items)
    assert back.verdict == used.verdict and back.sentence == used.sentence and str(back) == str(used)
    page = used.to_html(tmp_path / "use.html").read_text()
    assert "Plotly.newPlot" in page and "decodable and used here" in page and "https://" not in page.split("<body>")[1]
    assert "<table>" in used._repr_html_() and len(used.to_records()["rows"]) == len(used.frame)
    register_kind("probe_use", "probes.used:Use")  # as the entry point of the installed package does
    store = interp.RunStore(tmp_path / "runs")
    run = store.save(used, spec={})
    assert store.open(run.id).results().sentence == used.sentence
    (tmp_path / "use" / "about.json").write_text("{}")
    with pytest.raises(StorageError, match="probe_use"):
        Use.load(tmp_path / "use")


def test_the_figure_draws_every_control(used: Use) -> None:
    names = [trace.name for trace in used.plot().data]
    for part in ("along the probe", "random directions", "&#x27;END&#x27; instead", "other layers", "exchanged"):
        assert any(part in name for name in names if name)


@pytest.mark.parametrize("stray", ["<b>", "subject"])
def test_markup_in_names_is_shown_as_text(used: Use, stray: str) -> None:
    odd = replace(used, about={**used.about, "target": f"{stray}number<script>"})
    assert "<script>" not in odd.plot().layout.title.text
    assert "number<script>" not in odd._repr_html_()


def test_wrong_requests_are_refused_with_the_way_out() -> None:
    found = planted_at("resid_pre.1", "subject:last")
    model = PLANTED.model

    def refused(match: str, found=found, pairs=PAIRS, **options) -> None:
        with pytest.raises(InputError, match=match):
            test_use(found, model, pairs, **{"position": "subject:last", "wrong_position": "END", **options})

    refused("no position named 'noun'", position="noun")
    refused("no position named 'noun'", wrong_position="noun")
    refused("doses=", doses=())
    refused("n_random=0", n_random=0)
    refused("no layer 7", other_layers=[7])
    refused("24 pairs and 2 labels", labels=["one", "several"])
    refused("no class 'many'", labels=["many"] * 24)
    refused("outside the layers", found=replace(found, place=Place("hook_embed")))
    refused("vector for each token", found=replace(found, place=Place("blocks.1.attn.hook_pattern", 0)))
    refused("Name one of its heads", found=replace(found, place=Place("blocks.1.attn.hook_z")))
    refused("Leave the head out", found=replace(found, place=Place("blocks.1.hook_resid_pre", 1)))
    refused("class means have shape", found=replace(found, means=found.means[:, :4]))
    refused("no classes to steer between", found=replace(found, classes=()))
    refused("has no direction", found=replace(found, direction=0 * found.direction))


# ---- against whole passes ----


def plain_metric(model, row: tuple[int, ...], answer: int, foil: int, read: int, hooks=()) -> float:
    logits = model.run_with_hooks(torch.tensor([row]), fwd_hooks=list(hooks))
    return float(logits[0, read, answer] - logits[0, read, foil])


def plain_changes(found, sign: float, eraser, centre) -> dict:
    """What each intervention does to one vector, by plain formula."""
    unit, between = found.direction, sign * (found.means[1] - found.means[0])
    return {
        ("steer", -1.0): lambda v: v - sign * found.spread * unit,
        ("steer", 1.5): lambda v: v + 1.5 * sign * found.spread * unit,
        ("swap", None): lambda v: v + between,
        ("ablate", None): lambda v: v - ((v - centre) @ unit) * unit,
        ("leace", None): lambda v: eraser(v),
        ("interchange", None): None,
    }


def writes(at, head, change, corrupt):
    """A hook that makes a change at some positions, or puts there what the corrupt run has."""

    def hook(tensor, hook):
        for pos in at:
            place = tensor[0, pos] if head is None else tensor[0, pos, head]
            there = corrupt[pos] if head is None else corrupt[pos, head]
            place.copy_(there if change is None else torch.from_numpy(change(place.double().numpy())))
        return tensor

    return hook


PLACES = [
    ("resid_pre.1", None),
    ("attn_out.0", None),
    ("mlp_post.1", None),
    ("z.0", 1),
    ("q.1", 2),
    ("k.1", 0),
    ("v.0", 1),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["llama", "gptj"])
@pytest.mark.parametrize(("site", "head"), PLACES)
@torch.no_grad()
def test_every_cell_is_what_a_pass_under_a_hook_gives(name: str, site: str, head: int | None) -> None:
    model = model_named(name)
    pairs = pairs_for(model, items=["a", "b", "c"])
    generator = torch.Generator().manual_seed(5)
    prompts = torch.randint(0, 20, (30, 5), generator=generator).tolist()
    labels = ["one" if i % 2 else "several" for i in range(30)]
    data = rows_of(model, prompts, [3] * 30, labels, site)
    full = next(iter(data.activations))
    found = found_in(data, Place(full, head))
    use = test_use(found, model, pairs, position="subject", wrong_position="verb", n_random=1, doses=(-1, 1.5))
    x, y = data.rows(found.place).astype(float), np.array(labels)
    eraser, centre = LEACE().fit(x, y).eraser_, x.mean(0)
    for pair in range(3):
        clean, (answer,), (foil,) = pairs.clean[pair], pairs.answer[pair][0], pairs.foil[pair][0]
        read = pairs.read[pair]
        base = plain_metric(model, clean, answer, foil, read)
        stands, corrupt = (
            model.run_with_cache(torch.tensor([row]), names_filter=[full])[1][full][0]
            for row in (clean, pairs.corrupt[pair])
        )
        own = (stands if head is None else stands[:, head])[pairs.span("subject", pair)[-1]].double().numpy()
        sign = -1.0 if own @ found.direction > found.threshold else 1.0
        for (intervention, dose), change in plain_changes(found, sign, eraser, centre).items():
            for control, position in (("", "subject"), ("wrong position", "verb")):
                hook = writes(pairs.span(position, pair), head, change, corrupt)
                patched = plain_metric(model, clean, answer, foil, read, [(full, hook)])
                rows = use.items.loc[(use.items["intervention"] == intervention) & (use.items["control"] == control)]
                rows = rows.loc[rows["place"] == str(found.place)]
                rows = rows if dose is None else rows.loc[rows["dose"] == dose]
                moved = float(rows.loc[rows["item"] == "abc"[pair], "moved"].iloc[0])
                assert moved == pytest.approx(base - patched, abs=1e-5 * max(1, abs(base), abs(patched)))


def test_three_classes_are_steered_towards_what_the_corrupt_run_holds() -> None:
    model = model_named("llama")
    pairs = pairs_for(model)
    prompts = torch.randint(0, 20, (45, 5), generator=torch.Generator().manual_seed(2)).tolist()
    data = rows_of(model, prompts, [2] * 45, [["a", "b", "c"][i % 3] for i in range(45)], "resid_pre.1")
    found = found_in(data, Place("blocks.1.hook_resid_pre"))
    use = test_use(found, model, pairs, position="subject", wrong_position="verb", n_random=2)
    assert set(use.about["pairs_by_own_class"]) == {"a", "b", "c"}
    assert use.about["erased_rank"]["leace"] == 2
    assert np.isfinite(use.frame["effect"]).all()


def test_an_encoder_needs_a_metric_of_its_residuals() -> None:
    model = model_named("encoder_grouped")
    pairs = pairs_for(model)
    prompts = torch.randint(0, 20, (30, 5), generator=torch.Generator().manual_seed(5)).tolist()
    data = rows_of(model, prompts, [3] * 30, ["one" if i % 2 else "several" for i in range(30)], "resid_pre.1")
    found = found_in(data, Place(next(iter(data.activations))))
    if model.unembed is None:
        with pytest.raises(InputError, match="no logits"):
            test_use(found, model, pairs, position="subject", wrong_position="verb")
    metric = interp.metrics.embedding_similarity()
    use = test_use(found, model, pairs, position="subject", wrong_position="verb", metric=metric, n_random=1)
    assert use.about["metric"] == "embedding_similarity" and np.isfinite(use.frame["moved"]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"doses": (float("inf"),)}, "give doses"),
        ({"doses": ("much",)}, "give doses"),
        ({"decisive": float("nan")}, "give doses"),
        ({"min_effect": -1.0}, "min_effect=-1"),
        ({"min_effect": float("nan")}, "min_effect=nan"),
        ({"alpha": 7.0}, "alpha=7"),
        ({"min_items": 0}, "min_items=0"),
        ({"wrong_position": "subject:last"}, "is the position itself"),
    ],
)
def test_settings_under_which_any_verdict_would_follow_are_refused(unchecked, options, words) -> None:
    found = planted_at("resid_pre.1", "subject:last")
    where = {"position": "subject:last", "wrong_position": "END", "n_random": 2, "doses": (1,)}
    with pytest.raises(InputError, match=words):
        test_use(found, PLANTED.model, PAIRS, **{**where, **options})


def test_a_probe_that_could_not_be_tested_is_refused(unchecked) -> None:
    found = planted_at("resid_pre.1", "subject:last")
    where = {"position": "subject:last", "wrong_position": "END", "n_random": 2, "doses": (1,)}
    flat = replace(found, means=np.tile(found.means[:1], (2, 1)))
    with pytest.raises(InputError, match="do not lie apart"):
        test_use(flat, PLANTED.model, PAIRS, **where)
    beyond = replace(planted_at("z.1", "subject:last", 0), place=Place("blocks.1.attn.hook_z", 99))
    with pytest.raises(InputError, match="no head 99"):
        test_use(beyond, PLANTED.model, PAIRS, **where)
    with pytest.raises(InputError, match="takes one probe"):
        test_use(found.dataset, PLANTED.model, PAIRS, **where)


def test_numbers_are_erased_as_numbers_whatever_their_column_is_made_of() -> None:
    found = planted_at("resid_pre.1", "subject:last")
    assert found.dataset is not None
    sizes = np.where(found.dataset.labels["number"] == "one", 1.0, 2.0) + np.linspace(0, 0.1, len(found.dataset))
    for kind in (float, object):
        data = replace(found.dataset, labels=pd.DataFrame({"number": pd.Series(list(sizes), dtype=kind)}))
        erased, _ = erasers(replace(found, dataset=data, classes=("below the median", "above the median")), seed=0)
        assert erased["leace"].rank == erased["inlp"].rank == 1, kind
