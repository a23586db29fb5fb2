"""Where a confirmation reads the answer, and what it reads there, by runs of the model that are edited by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from tests.circuits.layouts import double, rows
from tests.model.conftest import ZOO, _one_thread, randomize, unchecked, words

__all__ = ["_one_thread", "unchecked", "words"]

TOKENS = torch.tensor(rows([7], 1))
OTHER = torch.tensor(rows([6], 2))


def by_hand(
    model: HookedTransformer, head: str, side: str, pos: int, read: int, others: list[int] | None
) -> list[float]:
    """Logits at `read`, as they are and with the edge 4 → 2 of a head rescored: its query or key is that of a run
    without MLP 0 at that position (or with its mean over `others`), and everything else is as it was."""
    layer, number = (int(one) for one in head.split("."))
    address, config = f"{model.main.address}blocks.", model.main.config.blocks[layer].attn
    own = number if side == "query" else number // (config.n_heads // config.n_key_value_heads)
    made, scores = f"{address}{layer}.attn.hook_{side[0]}", f"{address}{layer}.attn.hook_attn_scores"
    found: dict[str, torch.Tensor] = {}

    def silence(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x[0, pos] = 0 if others is None else x[0, others].mean(0)
        return x

    def take(x: torch.Tensor, hook: Any) -> None:
        found[hook.name] = x[0].clone()

    def put_one(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x[0, pos, own] = found[made][pos, own]
        return x

    def put_row(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x[0, number, 4] = found[scores][number, 4]
        return x

    with torch.no_grad():
        before = model(TOKENS)
        model.run_with_hooks(TOKENS, fwd_hooks=[(f"{address}0.hook_mlp_out", silence), (made, take)])
        model.run_with_hooks(TOKENS, fwd_hooks=[(made, put_one), (scores, take)])
        after = model.run_with_hooks(TOKENS, fwd_hooks=[(scores, put_row)])
    return [float(before[0, read, 3]), float(after[0, read, 3])]


@pytest.mark.parametrize("replace_with", ["zero", "mean"])
@pytest.mark.parametrize(("side", "pos"), [("query", 4), ("key", 2)])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "encoder", "softcap"])
def test_the_change_of_the_answer_is_that_of_a_run_edited_by_hand(
    name: str, side: str, pos: int, replace_with: str
) -> None:
    """Layer 1 reads MLP 0 directly, so replacing it at one position changes that position's query or key alone. The
    mean is over what the query sees but the first token and the one that is replaced."""
    model = double(name)
    read = 4
    found = interp.explain_attention(
        model, TOKENS, "1.1", 4, 2, confirm="0_mlp_out", replace_with=replace_with, answer=3, read=read
    )
    assert found.confirmed is not None
    row = found.confirmed.set_index("side").loc[side]
    seen = range(1, 7 if model.decoder is None else 5)
    others = None if replace_with == "zero" else [one for one in seen if one != pos]
    before, after = by_hand(model, "1.1", side, pos, read, others)
    assert row["answer"] == pytest.approx(before, abs=1e-9) and row["answer_after"] == pytest.approx(after, abs=1e-9)
    assert found.about["read"] == read and abs(after - before) > 1e-9


def test_where_the_answer_is_read_is_said(words: Any) -> None:
    found = interp.explain_attention(double("llama"), TOKENS, "1.1", 4, 2, confirm=True)
    assert found.about["read"] == 6 and "the last token" in found.leaves_out
    found = interp.explain_attention(double("bert"), TOKENS, "1.1", 4, 2, confirm=True)
    assert found.about["read"] == 4 and "the query stands there" in found.leaves_out
    found = interp.explain_attention(double("bert"), TOKENS, "1.1", 4, 2, confirm=True, read=-1)
    assert found.about["read"] == 6 and "as asked" in found.leaves_out
    assert "is read at" not in interp.explain_attention(double("bert"), TOKENS, "1.1", 4, 2).leaves_out


def test_an_encoder_is_read_at_its_mask(words: Any) -> None:
    tokenizer = words()
    tokenizer.mask_id = 9
    model = randomize(HookedTransformer(ZOO["bert"], tokenizer, dtype=torch.float64))
    tokens = torch.tensor([[3, 4, 9, 5, 6]])
    found = interp.explain_attention(model, tokens, "1.1", 4, 1, confirm=True)
    assert found.about["read"] == 2 and "mask token stands there" in found.about["read_because"]
    own = int(model(tokens)[0, 2].argmax())
    assert found.about["answer"] == model.to_single_str_token(own)
    twice = torch.tensor([[3, 9, 9, 5, 6]])
    assert interp.explain_attention(model, twice, "1.1", 4, 1, confirm=True).about["read"] == 4
    with pytest.raises(InputError, match="stands in the text 2 times"):
        interp.explain_attention(model, twice, "1.1", 4, 1, confirm=True, read="mask")


@pytest.mark.parametrize("head", ["encoder.attn.1.1", "decoder.attn.1.1", "decoder.cross_attn.1.1"])
def test_with_two_texts_the_decoders_answers_wherever_the_head_stands(head: str) -> None:
    model = double("two_stacks")
    found = interp.explain_attention(model, TOKENS, head, 4, 2, decoder_input=OTHER, confirm=True, answer=7)
    assert found.about["read"] == 5 and found.about["read_token"] == str(int(OTHER[0, 5]))
    assert found.confirmed is not None
    with torch.no_grad():
        own = float(model(TOKENS, decoder_input=OTHER)[0, 5, 7])
    assert found.confirmed["answer"].to_numpy() == pytest.approx(own, abs=1e-9)


def test_a_model_without_a_head_measures_attention_and_refuses_answers() -> None:
    headless = HookedTransformer(ZOO["bert"].headless(), dtype=torch.float64)
    found = interp.explain_attention(headless, TOKENS, "1.1", 4, 2, confirm=True)
    assert found.confirmed is not None and found.confirmed["answer"].isna().all()
    assert found.confirmed["attention_change"].abs().max() > 0
    for options in ({"answer": 3}, {"read": 3}):
        with pytest.raises(InputError, match="no head that predicts tokens"):
            interp.explain_attention(headless, TOKENS, "1.1", 4, 2, confirm=True, **options)
