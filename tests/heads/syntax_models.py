"""Small models that read sentences word by word, with random weights, and oracles that loop over everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from interp.heads.syntax_lexicon import WORDS
from interp.heads.syntax_words import LabelledTokens
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.text.tokenizer import Tokenizer

SIZE = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_ctx": 128, "d_mlp": 64}


@cache
def word_tokenizer(bos: bool = True) -> Tokenizer:
    """One token to a word of the grammar (plurals are unknown words), whatever its case."""
    known = {piece for some in WORDS.values() for one in some for piece in one.split()}
    closed = "the a an this that these those some every which who and or did not have was were by to . , ? '"
    names = ["[UNK]", "[PAD]", *(["[BOS]"] if bos else []), *sorted({one.lower() for one in known | {*closed.split()}})]
    vocabulary = {name: i for i, name in enumerate(names)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    from tokenizers import normalizers

    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(names[: 2 + bos])
    return Tokenizer(backend, add_bos=False, bos_id=2 if bos else None, eos_id=None, pad_id=1, unk_id=0)


def reader(kind: str = "decoder", seed: int = 0, *, bos: bool = True, sharp: float = 1.0) -> HookedTransformer:
    """A model with random weights; `sharp` makes its attention less even."""
    tokenizer = word_tokenizer(bos)
    options = {**SIZE, "d_vocab": tokenizer.n_vocab, "model_name": f"tiny {kind}"}
    cfg = ModelConfig.decoder_only(**options) if kind == "decoder" else ModelConfig.encoder_only(**options)
    model = HookedTransformer(cfg, seed=seed, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                by = sharp if name.endswith((".q.weight", ".k.weight")) else 1.0
                scale = 1.0 if "embed" in name else by * weight.shape[1] ** -0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model


def both_ways(model: HookedTransformer) -> HookedTransformer:
    """A decoder's weights in an encoder."""
    stack = model.cfg.decoder
    assert stack is not None
    blocks = tuple(replace(block, attn=replace(block.attn, mask="bidirectional")) for block in stack.blocks)
    cfg = replace(model.cfg, decoder=None, encoder=replace(stack, blocks=blocks), model_name="planted encoder")
    encoder = HookedTransformer(cfg, dtype=model.dtype)
    weights = {name.replace("decoder.", "encoder.", 1): value for name, value in model.state_dict().items()}
    encoder.load_state_dict(weights)
    return encoder


def looks_by_hand(
    model: HookedTransformer, sentence: LabelledTokens, *, causal: bool
) -> tuple[list[list[list[int]]], list[list[list[bool]]]]:
    """`[layer][head][word]`: the word looked at, and whether a special token gets more, by plain loops."""
    _, cache = model.run_with_cache(torch.tensor([list(sentence.tokens)]), return_type=None)
    owned = {position for word in sentence.words for position in word}
    special = [position for position in range(len(sentence.tokens)) if position not in owned]
    at, beaten = [], []
    for layer in range(model.cfg.n_layers):
        pattern = cache["pattern", layer][0]
        rows, worse = [], []
        for head in range(pattern.shape[0]):
            places, lost = [], []
            for number, word in enumerate(sentence.words):
                share = {}
                for other, tokens in enumerate(sentence.words):
                    if other == number or (causal and other > number) or not tokens or not word:
                        continue
                    total = sum(pattern[head, q, k].item() for q in word for k in tokens)
                    share[other] = total / len(word)
                place = max(share, key=lambda other: share[other]) if share else -1
                most = (
                    max((sum(pattern[head, q, k].item() for q in word) / len(word) for k in special), default=0.0)
                    if word
                    else 0.0
                )
                places.append(place)
                lost.append(bool(share) and most > share[place])
            rows.append(places)
            worse.append(lost)
        at.append(rows)
        beaten.append(worse)
    return at, beaten


def scattered(n: int, vocabulary: int, seed: int, relations: Sequence[str] = ("r", "s")) -> list[LabelledTokens]:
    """Rows of random tokens with words of one to three tokens, special tokens among them, and arcs at random."""
    generator, found = torch.Generator().manual_seed(seed), []

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    for _ in range(n):
        words, at = [], 1
        for _ in range(number(4, 9)):
            length = number(1, 4)
            words.append(tuple(range(at, at + length)))
            at += length + (number(0, 4) == 0)
        tokens = tuple(number(3, vocabulary) for _ in range(at))
        arcs = []
        for dependent in range(len(words)):
            head = number(0, len(words))
            if head != dependent:
                arcs.append((relations[number(0, len(relations))], dependent, head))
        found.append(LabelledTokens(tokens, tuple(words), tuple(arcs)))
    return found
