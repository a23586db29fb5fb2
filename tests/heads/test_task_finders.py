"""Finders of heads that serve a task: on models whose circuit is known, in all variants; and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import interp
import interp.heads.study as study_module
from interp import planted
from interp.errors import InputError
from interp.heads.splits import halves
from interp.heads.study import Study
from interp.pairs import PromptPairs
from interp.sites import Head

# circuit -> corruptions that decide, kinds to look for
CIRCUITS = {
    "ioi": ("abc", ("name_mover", "negative_mover", "s_inhibition", "backup")),
    "negative": ("abc", ("name_mover", "negative_mover", "s_inhibition", "backup")),
    "backup": ("abc", ("name_mover", "negative_mover", "s_inhibition", "backup")),
    "copy_suppression": ("absent", ("copy_suppression",)),
    "coreference": ("pronoun", ("coreference",)),
    "fact_recall": ("subject", ("fact_recall",)),
    "additive_facts": ("subject relation", ("fact_recall", "fact_relation")),
}
VARIANTS = [
    {"norm": norm, "rotate": rotate, "noisy": noisy}
    for norm in ("none", "rms", "layer")
    for rotate in (False, True)
    for noisy in (False, True)
]


# Each of its heads serves one relation. With every subject asked for both, half of the items are enough for either.
MORE = {"fact_recall": {"n": 64}}


@cache
def found(name: str, norm: str = "none", rotate: bool = False, noisy: bool = False, seed: int = 0):
    noise = planted.EPSILON[name] if noisy else 0.0
    made = planted.make(name, norm=norm, rotate=rotate, noise=noise, seed=seed, **MORE.get(name, {}))
    corruptions, kinds = CIRCUITS[name]
    pairs = {one: as_task(made.pairs[one], name) for one in corruptions.split()}
    return made, interp.find_heads(made.model, kinds, pairs=pairs, top=4, n_random_sets=2, seed=0)


def as_task(pairs: PromptPairs, name: str) -> PromptPairs:
    """The positions as the tasks call them."""
    if name != "copy_suppression":
        return pairs
    return replace(pairs, positions={**pairs.positions, "copies": copies(pairs)})


def copies(pairs: PromptPairs):
    """Where each prompt holds its answer."""
    return tuple(
        tuple(i for i, token in enumerate(row) if token == answer[0][0])
        for row, answer in zip(pairs.clean, pairs.answer, strict=True)
    )


def named(scores, kind: str) -> set[str]:
    rows = scores.of(kind)
    chosen = rows[[verdict.split(" (")[0] == kind for verdict in rows["verdict"]]]
    return {f"{row.layer}.{row.head}" for row in chosen.itertuples()}


def must_match(name: str, **variant) -> None:
    made, scores = found(name, **variant)
    for kind in CIRCUITS[name][1]:
        truth = {str(head) for head in made.truth.heads.get(kind, ())}
        assert named(scores, kind) == truth, (kind, scores.of(kind)[["layer", "head", "verdict", "reason"]].to_string())


@pytest.mark.parametrize("name", CIRCUITS)
def test_planted_heads_are_found_and_no_others(name):
    must_match(name)


@pytest.mark.parametrize("name", ["ioi", "coreference", "additive_facts"])
def test_planted_heads_are_found_behind_norms_a_rotation_and_noise(name):
    must_match(name, **VARIANTS[-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", CIRCUITS)
def test_planted_heads_are_found_in_every_variant(name, variant, seed):
    must_match(name, **variant, seed=seed)


@pytest.mark.parametrize("name", CIRCUITS)
def test_decoys_attend_alike_and_are_rejected_by_their_cause(name):
    made, scores = found(name)
    by_cause = 0
    for kind in CIRCUITS[name][1]:
        rows = scores.of(kind).set_index(["layer", "head"])
        for real in made.truth.heads.get(kind, ()):
            for decoy in made.truth.decoys.get(kind, ()):
                twin, row = rows.loc[(real.layer, real.head)], rows.loc[(decoy.layer, decoy.head)]
                if decoy.layer == real.layer and kind != "backup" and abs(twin["score"] - row["score"]) < 1e-6:
                    assert row["verdict"] == f"attends like {kind}"
                    assert "effect" in row["reason"] or "not tested" in row["reason"] or "writing" in row["reason"]
                    by_cause += "effect" in row["reason"]
    assert by_cause, "no decoy was tested"


def test_a_head_of_the_nearest_noun_looks_perfect_until_orders_are_balanced():
    made, scores = found("coreference")
    nearest = next(iter(made.truth.decoys["nearest_noun"]))
    row = scores.of("coreference").set_index(["layer", "head"]).loc[(nearest.layer, nearest.head)]
    assert row["antecedent_second"] == 1.0 and row["antecedent_first"] == 0.0 and row["score"] == pytest.approx(0.5)
    pairs = made.pairs["pronoun"]
    near = [i for i in range(len(pairs)) if pairs.span("antecedent", i) > pairs.span("distractor", i)]
    one_sided = interp.find_heads(made.model, "coreference", pairs=pairs.select(near), top=4, n_random_sets=2)
    assert one_sided.of("coreference").set_index(["layer", "head"]).loc[(nearest.layer, nearest.head), "score"] == 1.0
    assert named(one_sided, "coreference") == set()
    assert "nearest-noun head would pass" in one_sided.about["problems"]["coreference"]
    assert scores.about["baselines"]["coreference"] == {"nearest": 0.5, "first": 0.5}


def test_measures_of_a_planted_mover_are_those_of_the_exact_engine():
    made, scores = found("ioi")
    mover = next(iter(made.truth.heads["name_mover"]))
    pairs = made.pairs["abc"]
    _, report = halves(pairs, 0)
    rest = pairs.select(report)
    row = scores.of("name_mover").set_index(["layer", "head"]).loc[(mover.layer, mover.head)]
    for name, sign, effects in (
        ("noise", -1, interp.patch(made.model, rest, [str(mover)], over=("target",), direction="noise")),
        ("denoise", 1, interp.patch(made.model, rest, [str(mover)], over=("target",), direction="denoise")),
        ("mean", -1, interp.ablate(made.model, rest, [str(mover)], "mean")),
        ("resample", -1, interp.ablate(made.model, rest, [str(mover)], "resample", seed=0)),
    ):
        share = sign * effects.values.values.mean() / (effects.base.mean() - effects.source.mean())
        share = -share if name == "denoise" else share
        assert row[name] == pytest.approx(share, abs=1e-6), name
    assert row["effect"] == row["noise"] and row["control"] == pytest.approx(0.0, abs=1e-6)


def test_what_a_study_reads_is_what_plain_passes_show():
    made, _ = found("ioi")
    pairs = made.pairs["abc"].select(range(6))
    study = Study(made.model, {"abc": pairs}, ("END",))
    for prompt in range(6):
        tokens = torch.tensor([pairs.clean[prompt]])
        _, cache = made.model.run_with_cache(tokens)
        end, io = pairs.read[prompt], list(pairs.span("IO", prompt))
        up, down = pairs.answer[prompt][0][0], pairs.foil[prompt][0][0]
        for layer in range(made.model.cfg.n_layers):
            pattern = cache["pattern", layer][0, :, end]
            np.testing.assert_allclose(
                study.attention("END", "IO")[prompt, layer], pattern[:, io].sum(-1).detach().numpy(), atol=1e-6
            )
            written = (
                cache["result", layer][0, end].detach() @ (made.model.W_U[:, up] - made.model.W_U[:, down]).detach()
            )
            np.testing.assert_allclose(
                study.writes("END", up=study.answers, down=study.foils)[prompt, layer], written.numpy(), atol=1e-4
            )


def test_prompts_that_begin_alike_are_read_from_one_pass_and_show_the_same(monkeypatch):
    made, _ = found("ioi")
    long, short = made.pairs["abc"].select(range(3)), made.pairs["abc"].select(range(2))
    cut = 3  # the first tokens of two of them, as prompts of their own, and one twice
    rows = {"clean": [*long.clean, *(row[:cut] for row in short.clean), long.clean[0]]}
    rows["corrupt"] = [*long.corrupt, *(row[:cut] for row in short.corrupt), long.corrupt[0]]
    answers = [*long.answer, *short.answer, long.answer[0]]
    pairs = interp.PromptPairs(**{name: tuple(map(tuple, some)) for name, some in rows.items()}, answer=tuple(answers))
    passes = []
    stream = study_module.stream_heads
    counted = lambda model, batch, *a, **k: passes.append(len(batch.tokens)) or stream(model, batch, *a, **k)  # noqa: E731
    monkeypatch.setattr(study_module, "stream_heads", counted)
    together = Study(made.model, {"abc": pairs}, ("END",))
    for i in range(len(pairs)):
        alone = Study(made.model, {"abc": pairs.select([i])}, ("END",))
        np.testing.assert_allclose(together.looks_at("END")[i], alone.looks_at("END")[0])
        torch.testing.assert_close(together.outputs("END")[i], alone.outputs("END")[0], atol=1e-5, rtol=1e-5)
        up = together.answers[i : i + 1]
        np.testing.assert_allclose(
            together.writes("END", up=together.answers)[i], alone.writes("END", up=up)[0], atol=1e-5
        )
    assert passes[0] == 3 and sum(passes) == 3 + len(pairs)
    head = Head(0, 0)
    assert together.without((head,), "zero").outputs("END").shape[0] == len(pairs) and passes[-1] == len(pairs)


def test_halves_share_no_item_and_hold_all_prompts():
    made, _ = found("ioi")
    pairs = made.pairs["abc"]
    select, report = halves(pairs, 3)
    assert {pairs.items[i] for i in select}.isdisjoint(pairs.items[i] for i in report)
    assert sorted([*select, *report]) == list(range(len(pairs))) and select != halves(pairs, 4)[0]


def test_the_same_call_gives_the_same_numbers_and_goes_on_from_what_was_kept(tmp_path, monkeypatch):
    made, _ = found("ioi")
    options = {"pairs": {"abc": made.pairs["abc"]}, "top": 2, "n_random_sets": 1, "keep": tmp_path / "kept"}
    kinds = ["name_mover", "duplicate_token"]
    first = interp.find_heads(made.model, kinds, **options)
    monkeypatch.setattr("interp.heads.find._search", lambda *_: pytest.fail("was searched again"))
    again = interp.find_heads(made.model, kinds, **options)
    assert again.frame.equals(first.frame) and again.sets.equals(first.sets)
    monkeypatch.undo()
    asked = []
    search = interp.heads.find._search
    monkeypatch.setattr("interp.heads.find._search", lambda *a: asked.append(a[1]) or search(*a))
    interp.find_heads(made.model, kinds, **{**options, "top": 3})
    assert len(asked) == 2  # other settings, other numbers: nothing kept fits


def test_an_interrupted_search_keeps_the_tasks_it_had_finished(tmp_path, monkeypatch):
    made, _ = found("ioi")
    options = {"pairs": {"abc": made.pairs["abc"]}, "top": 2, "n_random_sets": 1, "keep": tmp_path / "kept"}

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("ioi"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interp.find_heads(made.model, ["duplicate_token", "name_mover"], **options, progress=stop)
    stages = []
    interp.find_heads(
        made.model, ["duplicate_token", "name_mover"], **options, progress=lambda stage, *_: stages.append(stage)
    )
    assert stages and all(stage.startswith("ioi") for stage in stages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "name_mover", "positions": ()}, r"needs the positions IO and S1 and S2.*these pairs name none"),
        ({"kinds": "coreference"}, r"needs the positions pronoun and antecedent and distractor"),
        ({"kinds": "name_mover", "pairs": 7}, "pairs= is int. Give PromptPairs"),
        ({"kinds": "name_mover", "pairs": {}}, "Give PromptPairs"),
        ({"kinds": "name_mover", "screen": "some"}, "screen is 'some'"),
        ({"kinds": "name_mover", "n_pairs": 10}, r"10 items in these pairs.*2 measures.*is 0.0625.*at least 12 items"),
        ({"kinds": "s_inhibition", "n_pairs": 8}, r"1 kind the smallest.*at least 10 items"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_to_do(options, message):
    made, _ = found("ioi")
    pairs = options.get("pairs", made.pairs["abc"].select(range(options.get("n_pairs", 40))))
    if "positions" in options:
        pairs = replace(pairs, positions={})
    with pytest.raises(InputError, match=message):
        interp.find_heads(made.model, options["kinds"], pairs=pairs, screen=options.get("screen", "attention"))


def test_as_few_items_as_are_said_to_be_enough_can_be_told_from_chance():
    made, _ = found("ioi")
    scores = interp.find_heads(made.model, "name_mover", pairs=made.pairs["abc"].select(range(12)), top=4)
    assert named(scores, "name_mover") == {str(head) for head in made.truth.heads["name_mover"]}


@pytest.mark.parametrize("name", ["ioi", "backup"])
def test_results_say_which_name_movers_others_were_tested_with(name):
    made, scores = found(name)
    movers = {str(head) for head in made.truth.heads["name_mover"]}
    assert set(scores.about["tasks"]["ioi"]["name movers"].split()) == movers


def test_pairs_whose_clean_prompts_differ_between_corruptions_are_refused():
    made, _ = found("ioi")
    pairs = {"abc": made.pairs["abc"], "swap": made.pairs["swap"].select(range(39, -1, -1))}
    with pytest.raises(InputError, match="clean prompts or items of 'swap' differ"):
        interp.find_heads(made.model, "name_mover", pairs=pairs)


def test_pattern_kinds_take_pairs_too():
    made = planted.make("induction")
    corruption = next(iter(made.pairs))
    scores = interp.find_heads(
        made.model, ["previous_token", "induction"], pairs=made.pairs[corruption], top=4, n_random_sets=2
    )
    assert named(scores, "induction") == {str(head) for head in made.truth.heads["induction"]}
    assert scores.about["data"]["induction"].startswith("the pairs given")


def test_a_task_that_the_model_does_not_do_gives_no_verdict():
    made, _ = found("ioi")
    pairs = made.pairs["abc"]
    shuffled = replace(pairs, answer=pairs.foil[:20] + pairs.answer[20:], foil=pairs.answer[:20] + pairs.foil[20:])
    scores = interp.find_heads(made.model, "name_mover", pairs=shuffled, top=4, n_random_sets=2)
    assert not scores.about["tasks"]["ioi"]["is done"]
    assert set(scores.frame["verdict"]) == {""} and scores.frame["reason"].str.startswith("cannot tell").all()


def test_results_with_tables_come_back_as_they_were(tmp_path):
    _, scores = found("fact_recall")
    assert any("MLPs" in name for name in scores.tables)
    scores.save(tmp_path / "it")
    again = interp.HeadScores.load(tmp_path / "it")
    assert list(again.tables) == list(scores.tables)
    assert all(again.tables[name].equals(scores.tables[name]) for name in scores.tables)
    assert again.frame.equals(scores.frame)
