"""Which models a kind of head is for: declared by each kind, refused by a sentence before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.errors import InputError
from interp.heads.base import AttentionKind, Finder, attention_kind, finders
from interp.heads.splits import halves
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, StackConfig
from interp.model.kinds import KINDS_IN_WORDS
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from tests.heads.syntax_models import scattered

D_MODEL, D_VOCAB, N_CTX = 32, 120, 128
CAUSAL = AttentionConfig(4, 8, 4, 8**-0.5)
BOTH_WAYS = replace(CAUSAL, mask="bidirectional")
MLP = MLPConfig(32)


def stack(attn: AttentionConfig, cross: AttentionConfig | None = None) -> StackConfig:
    return StackConfig((BlockConfig(attn, MLP, cross_attn=cross),) * 2, learned_positions=N_CTX)


def model_of(**parts: Any) -> HookedTransformer:
    return HookedTransformer(ModelConfig(D_MODEL, D_VOCAB, N_CTX, model_name="tiny", **parts))


def made(kind: str) -> HookedTransformer:
    if kind == "decoder":
        return model_of(decoder=stack(CAUSAL))
    if kind == "encoder":
        return model_of(encoder=stack(BOTH_WAYS))
    return model_of(encoder=stack(BOTH_WAYS), decoder=stack(CAUSAL, BOTH_WAYS))


KINDS = get_args(AttentionKind)
CASES = [(name, kind) for name in finders() for kind in KINDS]


def test_every_kind_of_model_has_its_name_and_one_layer_that_looks_both_ways_makes_an_encoder() -> None:
    assert [attention_kind(made(kind)) for kind in KINDS] == list(KINDS)
    mixed = StackConfig((BlockConfig(CAUSAL, MLP), BlockConfig(BOTH_WAYS, MLP)))
    assert attention_kind(model_of(encoder=mixed)) == "encoder"


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_kind_of_head_works_on_the_models_it_declares_and_refuses_all_others(
    name: str, kind: AttentionKind, placed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, model = finders()[name], made(kind)
    assert finder.applies_to and finder.applies_to <= set(KINDS)
    if kind in finder.applies_to:
        if isinstance(finder, SyntaxFinder):
            finder.must_apply_to(model, rows := scattered(60, D_VOCAB, seed=1))
            assert len(interp.find_heads(model, name, corpus=rows, n=6, top=1).frame) == 8
            return
        finder.must_apply_to(model)
        must_work(finder, model, placed)
        return
    monkeypatch.setattr(model, "run", lambda *_: pytest.fail("refused too late"))
    with pytest.raises(
        InputError, match=rf"{name} heads can be found in .*; tiny is of the {KINDS_IN_WORDS[kind][:8]}"
    ) as said:
        interp.find_heads(model, name)
    assert not isinstance(finder, Finder) or "ablation is judged by the" in str(said.value)


def must_work(finder: Finder | TaskFinder, model: HookedTransformer, placed: Any) -> None:
    """On a model without a tokenizer: rows of tokens for patterns, pairs with named positions for tasks."""
    options: dict[str, Any] = {"top": 1, "n_random_sets": 1, "seed": 0}
    if isinstance(finder, Finder):
        rows = torch.randint(5, D_VOCAB, (32, 40), generator=torch.Generator().manual_seed(9))
        if finder.cause != "ioi":  # whose names only a tokenizer has
            assert len(interp.find_heads(model, finder.name, corpus=rows, n=6, **options).frame) == 8
        return
    pairs = placed(planted.null(n=12).pairs["random"], 0)
    if attention_kind(model) == "decoder":
        scores = interp.find_heads(model, finder.name, pairs=pairs, **options)
        without_movers = "no name mover" in scores.about["problems"].get(finder.name, "")
        assert len(scores.frame) == (0 if without_movers and finder.name == "backup" else 8)
        assert without_movers == (finder.name in ("backup", "s_inhibition")) == scores.sets.empty
        return
    scores = interp.find_heads(model, finder.name, pairs=pairs, **options)
    assert len(scores.frame) == 8
    _, report = halves(pairs, 0)
    resolved = [resolved_by_hand(model, pairs, i) for i in report]
    assert scores.about["tasks"]["coreference"]["clean"] == pytest.approx(np.mean(resolved), abs=1e-6)
    bare = replace(pairs, answer=(), foil=(), positions={**pairs.positions, "END": ((0,),) * len(pairs)})
    assert interp.find_heads(model, finder.name, pairs=bare, **options).frame.equals(scores.frame)


def resolved_by_hand(model: HookedTransformer, pairs: Any, i: int) -> float:
    """How much nearer a prompt lies to itself with the antecedent for the pronoun than with the distractor."""
    row, at = list(pairs.clean[i]), pairs.span("pronoun", i)[0]

    def embedding(tokens: list[int]) -> torch.Tensor:
        _, cache = model.run_with_cache(torch.tensor([tokens]), return_type=None)
        last = model.main.config.n_layers - 1
        name = next(one for one in cache if one.endswith(f"blocks.{last}.hook_resid_post"))
        return model.main.finish(cache[name], NO_TAPS)[0].mean(dim=0)

    def instead(name: str) -> list[int]:
        return [*row[:at], *(row[j] for j in pairs.span(name, i)), *row[at + 1 :]]

    here, right, wrong = (embedding(one) for one in (row, instead("antecedent"), instead("distractor")))
    cosines = [torch.cosine_similarity(here, one, dim=0).item() for one in (right, wrong)]
    return cosines[0] - cosines[1]


@pytest.mark.parametrize(("kind", "said"), [("encoder", "attention is bidirectional"), ("cross", "two texts")])
def test_the_refusal_says_what_the_model_is_and_what_can_be_done_instead(kind: str, said: str) -> None:
    model = made(kind)
    with pytest.raises(InputError, match=rf"{said}.*loss on the second copy.*run_with_cache\(…, return_type=None\)"):
        interp.find_heads(model, "previous_token")
    options = {"decoder_input": torch.arange(4)[None]} if kind == "cross" else {}
    _, cache = model.run_with_cache(torch.arange(6)[None], return_type=None, **options)
    assert any(name.endswith("hook_pattern") for name in cache)


def test_a_decoder_without_logits_has_no_loss_to_judge_by() -> None:
    with pytest.raises(InputError, match="no head that predicts tokens"):
        interp.find_heads(model_of(decoder=stack(CAUSAL), has_unembed=False), "induction")
