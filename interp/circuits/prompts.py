"""What these analyses are asked about: prompts with an answer, read at one position, in groups that need no padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.direct import effective_unembedding
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.answers import answer_ids

__all__ = ["Group", "groups", "linear_sets", "model_answer", "one_token", "prompts", "token_texts", "unembedded_sets"]

_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Group:
    """Prompts of the same lengths that are read at the same place, so that one pass without padding runs them."""

    prompts: tuple[int, ...]
    tokens: Int[Tensor, "batch pos"]
    read: int
    options: dict[str, Any]


def prompts(
    model: HookedTransformer,
    data: Any,
    answer: Any = None,
    foil: Any = None,
    *,
    read: Any = None,
    decoder: Any = None,
) -> PromptPairs:
    """Pairs as they are; texts or token ids as pairs whose two sides are the same, with the answer given. Without an
    answer it is the token that the model itself likes best there."""
    if isinstance(data, PromptPairs):
        if any(one is not None for one in (answer, foil, read, decoder)):
            raise InputError(
                "These pairs have their answers, foils and read positions. Leave answer= and the rest out."
            )
        return data
    model.need_unembed()
    is_text = isinstance(data, str) or (isinstance(data, list | tuple) and any(isinstance(x, str) for x in data))
    if not is_text:
        data = data.tolist() if isinstance(data, Tensor) else data
        last = data if decoder is None else decoder
        answer, foil = (_ids_of(model, one, last, read, what) for one, what in ((answer, "answer"), (foil, "foil")))
    guess = answer is None
    if guess and foil is not None:
        raise InputError("There is a foil but no answer. Give answer=, or leave both out for the model's own choice.")

    def build(given: Any) -> PromptPairs:
        if is_text:
            return PromptPairs.from_text(model, data, data, given, foil, read=read, decoder=decoder)
        return PromptPairs.from_tokens(data, data, given, foil, read=read, clean_decoder=decoder, model=model)

    if not guess:
        return build(answer)
    return build(model_answer(model, build(0)))


@torch.no_grad()
def model_answer(model: HookedTransformer, pairs: PromptPairs) -> list[int]:
    """The token with the highest logit at each pair's read position."""
    found = [0] * len(pairs)
    for group in groups(model, pairs):
        best = model(group.tokens, unembed_pos=[group.read], **group.options)[:, 0].argmax(-1)
        for pair, token in zip(group.prompts, best.tolist(), strict=True):
            found[pair] = token
    return found


def groups(model: HookedTransformer, pairs: PromptPairs, side: str = "clean") -> Iterator[Group]:
    """All prompts of one side, those that fit together at once."""
    rows, decoders = getattr(pairs, side), getattr(pairs, f"{side}_decoder")
    kinds: dict[tuple[int, int, int], list[int]] = {}
    for pair, row in enumerate(rows):
        n_decoder = len(decoders[pair]) if decoders else 0
        kinds.setdefault((len(row), n_decoder, pairs.read[pair]), []).append(pair)
    for (length, n_decoder, read), members in kinds.items():
        step = max(1, _TOKENS_AT_ONCE // max(length, n_decoder))
        for start in range(0, len(members), step):
            part = tuple(members[start : start + step])
            tokens = torch.tensor([rows[i] for i in part], device=model.device)
            options: dict[str, Any] = {}
            if decoders:
                options["decoder_input"] = torch.tensor([decoders[i] for i in part], device=model.device)
            yield Group(part, tokens, read, options)


def linear_sets(pairs: PromptPairs, what: str) -> list[list[int]]:
    """Sets of single tokens whose logits are averaged; refuses what is no linear function of the logits."""
    sets = pairs.answer if what == "answer" else pairs.foil
    for pair, alternatives in enumerate(sets):
        if len(alternatives[0]) > 1:
            raise InputError(
                f"The {what} {pairs.spell(alternatives[0])} of pair {pair} is {len(alternatives[0])} tokens; its "
                f"log-probability is no sum over parts. Give its first token: {what}={alternatives[0][0]}."
            )
        if len(alternatives) > 1 and pairs.combine == "logsumexp":
            raise InputError(
                f"Pair {pair} has {len(alternatives)} alternative {what}s, combined by logsumexp, which is no sum over "
                'parts. Build the pairs with combine="mean", or give one alternative.'
            )
    return [[one[0] for one in alternatives] for alternatives in sets]


def unembedded_sets(model: HookedTransformer, sets: list[list[int]]) -> Float[Tensor, "pair d_model"]:
    """For each set of tokens the mean of their directions behind the final norm's gain and centring."""
    wanted = sorted({token for one in sets for token in one})
    place = {token: i for i, token in enumerate(wanted)}
    directions = effective_unembedding(model, torch.tensor(wanted, device=model.device)).detach()
    directions = directions if directions.dtype == torch.float64 else directions.float()
    return torch.stack([directions[:, [place[token] for token in one]].mean(1) for one in sets])


def token_texts(model: HookedTransformer, ids: list[int]) -> list[str]:
    """Tokens as readable text; as numbers where the model has no tokenizer or no such token."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return [str(one) for one in ids]
    known = [tokenizer.backend.id_to_token(one) is not None for one in ids]
    texts = iter(tokenizer.str_tokens([one for one, good in zip(ids, known, strict=True) if good]))
    return [next(texts) if good else str(one) for one, good in zip(ids, known, strict=True)]


def one_token(model: HookedTransformer, given: Any, what: str, before: str) -> int:
    """The one token of an answer, given as an id or as text behind the text `before`."""
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        raise InputError(f"{what} is {given!r}. Give a token's id, or its text.")
    if isinstance(given, int):
        if not 0 <= given < model.cfg.d_vocab:
            raise InputError(f"{what} is {given}; this vocabulary has ids 0 to {model.cfg.d_vocab - 1}.")
        return given
    ids = _known_ids(model, given, what, before)
    if len(ids) != 1:
        pieces = model.to_str_tokens(list(ids))
        said = f" ({pieces}). Give one of them, e.g. {pieces[0]!r}" if pieces else ". Give a text that is one token"
        raise InputError(f"{what} {given!r} is {len(ids)} tokens{said}.")
    return ids[0]


def _known_ids(model: HookedTransformer, text: str, what: str, before: str) -> tuple[int, ...]:
    """The tokens of a text behind another; refuses what the vocabulary lacks."""
    if model.tokenizer is None:
        raise InputError(f"{what} is the text {text!r}, but this model has no tokenizer. Give a token's id.")
    ids, unknown = answer_ids(model.tokenizer, text, before), model.tokenizer.unk_id
    if unknown is not None and unknown in ids and text.strip() != model.tokenizer.unk_token:
        raise InputError(f"{what} {text!r} is not in this vocabulary: it becomes {model.tokenizer.unk_token!r}.")
    return ids


def _ids_of(model: HookedTransformer, given: Any, rows: Any, read: Any, what: str) -> Any:
    """Texts beside token ids, as the tokens that each would be behind its own row."""
    if not isinstance(given, str) and not (isinstance(given, list | tuple) and _holds_text(given)):
        return given
    rows = rows.tolist() if isinstance(rows, Tensor) else rows
    rows = rows if len(rows) and isinstance(rows[0], list | tuple) else [rows]
    each = [given] * len(rows) if isinstance(given, str) else list(given)
    if len(each) != len(rows):
        return given  # refused where pairs are made, with the count

    def ids(one: Any, row: Any) -> Any:
        if isinstance(one, list | tuple) and _holds_text(one):
            return [ids(part, row) for part in one]
        if not isinstance(one, str):
            return one
        end = read + 1 if isinstance(read, int) and read != -1 else None
        before = "" if model.tokenizer is None else model.tokenizer.decode(list(row[:end]))
        return _known_ids(model, one, what, before)

    return [ids(one, row) for one, row in zip(each, rows, strict=True)]


def _holds_text(given: Any) -> bool:
    return any(isinstance(one, str) or (isinstance(one, list | tuple) and _holds_text(one)) for one in given)
