"""A hand-set model: one previous-token head feeds one induction head, and decoys only look like them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.model.config import AttentionConfig, BlockConfig, ModelConfig, NormConfig, StackConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

VOCAB, N_POS, SHARP = 80, 104, 200.0
PARTS = {"tok": VOCAB, "pos": N_POS, "prev": VOCAB, "out": VOCAB, "junk": VOCAB}


def _spans() -> dict[str, slice]:
    spans, start = {}, 0
    for name, width in PARTS.items():
        spans[name] = slice(start, start + width)
        start += width
    return spans


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def planted() -> HookedTransformer:
    """Layer 0: head 1 moves the previous token into `prev`; head 0 has its pattern but writes where nothing reads.
    Layer 1: head 2 matches `tok` with `prev` and copies into `out`; head 0 has its pattern but writes junk."""
    spans, d_model, d_head = _spans(), sum(PARTS.values()), N_POS
    attention = AttentionConfig(4, d_head, 4, 1.0)
    block = BlockConfig(attention, None, NormConfig("none"))
    stack = StackConfig((block, block), None, learned_positions=N_POS)
    cfg = ModelConfig(d_model, VOCAB, N_POS, decoder=stack, model_name="planted induction")
    model = HookedTransformer(cfg)
    shift = torch.zeros(N_POS, N_POS)
    shift[torch.arange(N_POS - 1), torch.arange(1, N_POS)] = 1.0  # the key at j answers the query at j + 1

    def plant(layer: int, head: int, query: str, key: str, write: str, keys: torch.Tensor | None = None) -> None:
        attn = model.blocks[layer].attn
        width = PARTS[query]
        attn.W_Q[head, spans[query], :width] = SHARP * torch.eye(width)
        attn.W_K[head, spans[key], :width] = torch.eye(width) if keys is None else keys
        attn.W_V[head, spans["tok"], :VOCAB] = torch.eye(VOCAB)
        attn.W_O[head, :VOCAB, spans[write]] = torch.eye(VOCAB)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        plant(0, 1, "pos", "pos", "prev", shift)
        plant(0, 0, "pos", "pos", "junk", shift)
        plant(1, 2, "tok", "prev", "out")
        plant(1, 0, "tok", "prev", "junk")
        model.W_E[:, spans["tok"]] = torch.eye(VOCAB)
        model.W_pos[:, spans["pos"]] = torch.eye(N_POS)
        model.W_U[spans["out"], :] = 10.0 * torch.eye(VOCAB)
    return model


@pytest.fixture(scope="session")
def random_rows() -> torch.Tensor:
    """Token ids in place of natural text, for models without a tokenizer."""
    return torch.randint(5, VOCAB, (64, 40), generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="session")
def random_model() -> HookedTransformer:
    return HookedTransformer(
        ModelConfig.decoder_only(
            n_layers=2, d_model=32, n_heads=4, n_key_value_heads=2, d_vocab=120, n_ctx=128, d_mlp=64
        )
    )


@pytest.fixture(scope="session")
def placed() -> Callable[[PromptPairs, int], PromptPairs]:
    """Pairs of equally long prompts with every position that a kind of head asks for, at random places before the end:
    no two of a prompt's names on one token, and what a pronoun means stands before it."""

    def place(pairs: PromptPairs, seed: int) -> PromptPairs:
        draw, last = np.random.default_rng([seed, *b"places"]), min(pairs.read)
        drawn = [draw.permutation(last)[:3].tolist() for _ in range(len(pairs))]
        ordered = [[*draw.permutation(sorted(three)[:2]).tolist(), max(three)] for three in drawn]
        names = {name: [(three[i],) for three in drawn] for i, name in enumerate(("IO", "S1", "S2"))}
        names |= {"subject": names["IO"], "relation": names["S1"], "copies": names["IO"], "attractor": names["S1"]}
        names |= {"context_object": names["S1"], "context_subject": names["S2"]}
        names |= dict.fromkeys(("ordinal", "needle", "labels"), names["IO"])
        names |= {
            name: [(three[i],) for three in ordered] for i, name in enumerate(("antecedent", "distractor", "pronoun"))
        }
        names |= {"cue": names["antecedent"], "related": names["pronoun"]}
        return replace(pairs, positions={**pairs.positions, **{name: tuple(spans) for name, spans in names.items()}})

    return place
