"""Text to tokens and back, padding, and the checks that every input passes before a forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.config import ModelConfig

__all__ = ["Batch", "TextMethods", "check_mask", "pad_rows", "too_long"]

Side = Literal["left", "right"]
Text = str | Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Tokens `[batch pos]` and, where some are padding, which are real."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None = None


class TextMethods:
    """The tokenizer's side of a model. `tokenizer` may be None: such a model takes token ids only."""

    cfg: ModelConfig
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    def to_tokens(
        self, text: Text, prepend_bos: bool | None = None, padding_side: Side | None = None, truncate: bool = False
    ) -> Int[Tensor, "batch pos"]:
        """Token ids, one row per text, padded on `padding_side` ("right" unless said).

        Text becomes what the checkpoint's metadata says; `prepend_bos` overrides it, and BOS is never put twice.
        For padded rows use `tokenize`, which also says what is padding. Raises `InputError` for an empty text and
        for one longer than the context unless `truncate` (which cuts the end).
        """
        return self.tokenize(text, prepend_bos=prepend_bos, padding_side=padding_side, truncate=truncate).tokens

    def tokenize(
        self,
        text: Text,
        *,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        truncate: bool = False,
    ) -> Batch:
        """As `to_tokens`, with the mask of real tokens where rows differ in length."""
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(one, str) for one in texts):
            raise InputError("There is no text. Give a string or a list of strings.")
        rows = self._need_tokenizer().encode_batch(texts, prepend_bos=prepend_bos)
        for one, row in zip(texts, rows, strict=True):
            if not row:
                raise InputError(f"The prompt {one!r} is empty. Give some text, or prepend_bos=True for BOS alone.")
        if truncate:
            rows = [row[: self.cfg.n_ctx] for row in rows]
        longest = max(len(row) for row in rows)
        if longest > self.cfg.n_ctx:
            raise InputError(too_long(longest, self.cfg.n_ctx))
        pad = self.tokenizer.pad_id if self.tokenizer.pad_id is not None else 0
        return pad_rows(rows, pad, padding_side or "right", self.device)

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of token ids, as a tensor, a list or one number: a string for one row, a list for several."""
        ids = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list):
            return [self._need_tokenizer().decode(row) for row in ids]
        return self._need_tokenizer().decode(ids)

    def to_str_tokens(self, text: Any, prepend_bos: bool | None = None) -> list[str] | list[list[str]]:
        """Each token as readable text. A list of texts, or ids of several rows, give a list of lists."""
        tokenizer = self._need_tokenizer()
        if isinstance(text, Tensor):
            ids = text.tolist()
            rows = ids if text.ndim == 2 else [ids if text.ndim else [ids]]
        elif isinstance(text, str):
            rows = [tokenizer.encode(text, prepend_bos=prepend_bos)]
        elif all(isinstance(one, int) for one in text):
            rows = [list(text)]
        elif all(isinstance(one, (list, tuple)) for one in text):
            rows = [list(one) for one in text]
        else:
            rows = tokenizer.encode_batch(list(text), prepend_bos=prepend_bos)
        pieces = [tokenizer.str_tokens(row) for row in rows]
        is_list = not isinstance(text, (str, Tensor)) and any(isinstance(one, str) for one in text)
        return pieces if is_list or len(rows) > 1 else pieces[0]

    def to_single_token(self, text: str) -> int:
        """The id of a text that is exactly one token; `InputError` shows the pieces of any other."""
        return self._need_tokenizer().single_token(text)

    def to_single_str_token(self, token: int) -> str:
        return self._need_tokenizer().str_tokens([int(token)])[0]

    def chat(self, messages: str | list[dict[str, str]], *, add_generation_prompt: bool = True) -> Int[Tensor, "1 pos"]:
        """Tokens of a conversation in the checkpoint's chat template; a string is one message of the user's."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        ids = self._need_tokenizer().encode_chat(messages, add_generation_prompt=add_generation_prompt)
        return torch.tensor([ids], device=self.device)

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise InputError("This model has no tokenizer. Give token ids, or load it with tokenizer=.")
        return self.tokenizer

    def batch(
        self,
        given: Any,
        *,
        prepend_bos: bool | None = None,
        padding_side: Any = None,
        attention_mask: Any = None,
        n_before: int = 0,
    ) -> Batch:
        """Any input of the forward pass as checked tokens; text, ids of one row, or ids of several."""
        if padding_side not in (None, "left", "right"):
            raise InputError(f'padding_side is {padding_side!r}. Choose "left" or "right".')
        is_text = isinstance(given, str) or (isinstance(given, Sequence) and any(isinstance(x, str) for x in given))
        if is_text:
            batch = self.tokenize(given, prepend_bos=prepend_bos, padding_side=padding_side)  # type: ignore[arg-type]
        else:
            batch = Batch(self._check_ids(given))
        if attention_mask is not None:
            batch = Batch(batch.tokens, check_mask(attention_mask, tuple(batch.tokens.shape), self.device, n_before))
        elif not is_text:
            batch = self._padding_of_ids(batch.tokens, padding_side)
        if n_before + batch.tokens.shape[1] > self.cfg.n_ctx:
            raise InputError(too_long(n_before + batch.tokens.shape[1], self.cfg.n_ctx))
        return batch

    def _check_ids(self, given: Any) -> Int[Tensor, "batch pos"]:
        try:
            ids = torch.as_tensor(given, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"The input is neither text nor a rectangle of token ids: {error}.") from error
        if ids.numel() == 0:
            raise InputError("The prompt is empty. Give at least one token.")
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise InputError(
                f"Token ids are whole numbers; this tensor is {ids.dtype}. A residual goes with start_at_layer=."
            )
        if ids.ndim not in (1, 2):
            raise InputError(f"Token ids come as [pos] or [batch, pos]; this tensor has shape {tuple(ids.shape)}.")
        ids = ids.long() if ids.ndim == 2 else ids.long()[None]
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.cfg.d_vocab:
            wrong = low if low < 0 else high
            raise InputError(f"Token id {wrong} is outside this model's vocabulary, 0 to {self.cfg.d_vocab - 1}.")
        return ids

    def _padding_of_ids(self, tokens: Tensor, side: Side | None) -> Batch:
        """Ids do not say what is padding. With `padding_side` the run of pad ids at that end is; else nothing is, and
        rows that look left-padded get a warning, since their logits would be silently wrong."""
        pad = getattr(self.tokenizer, "pad_id", None)
        if side is not None and pad is not None and len(tokens) > 1:
            is_pad = tokens == pad
            run = is_pad.long().cumprod(1) if side == "left" else is_pad.flip(1).long().cumprod(1).flip(1)
            if run.any():
                return Batch(tokens, check_mask(run == 0, tuple(tokens.shape), tokens.device))
        elif pad is not None and len(tokens) > 1 and tokens.shape[1] > 1:
            leading = (tokens[:, 0] == pad) & (tokens[:, 1] == pad)
            if leading.any() and not leading.all():
                warnings.warn(
                    f"Row {int(leading.nonzero()[0])} begins with padding tokens, which are read as text. "
                    "Pass attention_mask=, or padding_side='left'.",
                    stacklevel=4,
                )
        return Batch(tokens)


def pad_rows(rows: Sequence[Sequence[int]], pad: int, side: Side, device: torch.device | str = "cpu") -> Batch:
    """Rows of ids as one rectangle; the mask is None where nothing had to be padded."""
    if side not in ("left", "right"):
        raise InputError(f'padding_side is {side!r}. Choose "left" or "right".')
    width = max(len(row) for row in rows)
    tokens, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, place], mask[i, place] = torch.tensor(row), True
    return Batch(tokens.to(device), None if bool(mask.all()) else mask.to(device))


def check_mask(
    mask: Any, shape: tuple[int, ...], device: torch.device, n_before: int = 0
) -> Bool[Tensor, "batch pos"] | None:
    """A mask of `[batch pos]` new tokens as booleans, None where all are real. One over stored tokens too is cut."""
    mask = torch.as_tensor(mask, device=device)
    if mask.ndim == 1:
        mask = mask[None]
    if n_before and mask.shape[-1] == n_before + shape[1]:
        mask = mask[:, n_before:]
    if tuple(mask.shape) != shape:
        raise InputError(f"attention_mask has shape {tuple(mask.shape)}; the tokens have {shape}. Make them alike.")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError("attention_mask holds values other than 0 (padding) and 1 (real).")
    real = mask.bool()
    if not bool(real.any(dim=1).all()) and not n_before:
        row = int((~real.any(dim=1)).nonzero()[0])
        raise InputError(f"Row {row} is all padding. Leave it out of the batch.")
    return None if bool(real.all()) else real


def too_long(n_tokens: int, n_ctx: int) -> str:
    return (
        f"The prompt has {n_tokens} tokens; this model reads at most {n_ctx}. "
        "Shorten it, or tokenize it with truncate=True."
    )
