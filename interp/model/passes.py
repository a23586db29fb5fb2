"""One forward pass, prepared and run: it may start at any layer or after stored tokens, and stop at any layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import InputError
from interp.model.block import Memory
from interp.model.positions import KeyValues, Rows
from interp.model.stack import Stack
from interp.model.taps import Tap
from interp.model.tokens import Batch, check_mask, too_long
from interp.sites import Site

if TYPE_CHECKING:
    from interp.model.core import Transformer

__all__ = ["Pass", "prepare", "run_pass"]

Places = Sequence[int] | Tensor


@dataclass
class Pass:
    """What goes into one forward pass, where it starts and stops, and what it leaves behind.

    Either `batch` (token ids) or `resid` (entering layer `start`) goes in. A model with two stacks also needs
    `decoder`, and takes `memory` in place of running its encoder.
    """

    batch: Batch | None = None
    resid: Float[Tensor, "batch pos d_model"] | None = None
    mask: Bool[Tensor, "batch pos"] | None = None
    decoder: Batch | None = None
    memory: Memory | None = None
    start: int = 0
    stop: int | None = None
    past: KeyValues | None = None
    keep_keys: bool = False
    unembed_pos: Places | None = None
    unembed_tokens: Places | None = None
    rows: dict[str, Rows] = field(default_factory=dict)  # filled by the run
    keys: KeyValues | None = None  # filled by the run, with keep_keys

    @property
    def main(self) -> Batch | None:
        """The text that is predicted."""
        return self.decoder or self.batch

    @property
    def n_tokens(self) -> int:
        """Positions of the main text in this pass."""
        if self.resid is not None:
            return self.resid.shape[1]
        assert self.main is not None
        return self.main.tokens.shape[1]

    def reaches(self, site: Site, main_stack: str, n_layers: int) -> bool:
        """Whether this pass computes a site."""
        if site.name == "hook_unembed":
            return self.stop is None
        if site.stack != main_stack:
            return self.memory is None
        if site.layer is not None:
            return self.start <= site.layer < (n_layers if self.stop is None else self.stop)
        return self.stop is None if site.part == "ln_final" else self.resid is None


def prepare(
    model: Transformer,
    input: Any,
    *,
    prepend_bos: bool | None = None,
    padding_side: Any = None,
    attention_mask: Tensor | None = None,
    decoder_input: Any = None,
    start_at_layer: int | None = None,
    stop_at_layer: int | None = None,
    past_kv: KeyValues | None = None,
) -> Pass:
    """Check a call's input before anything runs."""
    n_layers = model.main.config.n_layers
    start = _layer(start_at_layer, n_layers, "start_at_layer") if start_at_layer is not None else 0
    stop = _layer(stop_at_layer, n_layers, "stop_at_layer") if stop_at_layer is not None else None
    if stop is not None and stop < start:
        raise InputError(f"stop_at_layer {stop} is before start_at_layer {start}. Swap them, or leave one out.")
    n_before = past_kv.n_keys if past_kv is not None else 0
    job = Pass(start=start, stop=stop, past=past_kv)
    if start_at_layer is not None:
        if model.encoder is not None and model.decoder is not None:
            raise InputError("A decoder starts at a layer only over an encoding: model.run(Pass(resid=…, memory=…)).")
        job.resid = _check_resid(model, input, n_before)
        if attention_mask is not None:
            job.mask = check_mask(attention_mask, tuple(job.resid.shape[:2]), job.resid.device, n_before)
        _check_rows(past_kv, len(job.resid))
        return job
    if (model.encoder is not None and model.decoder is not None) != (decoder_input is not None):
        what = "needs decoder_input=, the text its decoder reads" if decoder_input is None else "takes no decoder_input"
        raise InputError(f"This model {what}.")
    two = decoder_input is not None
    job.batch = model.batch(
        input,
        prepend_bos=prepend_bos,
        padding_side=padding_side,
        attention_mask=attention_mask,
        n_before=0 if two else n_before,
    )
    if two:
        job.decoder = model.batch(decoder_input, prepend_bos=prepend_bos, padding_side=padding_side, n_before=n_before)
        if len(job.decoder.tokens) != len(job.batch.tokens):
            raise InputError(
                f"The encoder gets {len(job.batch.tokens)} texts and the decoder {len(job.decoder.tokens)}. Pair them."
            )
    assert job.main is not None
    _check_rows(past_kv, len(job.main.tokens))
    return job


def run_pass(model: Transformer, job: Pass, tap: Tap) -> Tensor:
    """The residual a pass stops at, or its logits; the last residual where there is no unembedding."""
    memory = job.memory
    if memory is None and model.encoder is not None and model.decoder is not None:
        assert job.batch is not None
        memory = run_encoder(model, job.batch, tap)
    if memory is not None:
        job.rows["encoder"] = memory.rows
    stack = model.main
    if job.resid is None:
        assert job.main is not None
        rows = stack.rows(job.n_tokens, job.main.mask, job.past)
        resid = stack.embed_tokens(job.main.tokens, rows, tap)
    else:
        rows, resid = stack.rows(job.n_tokens, job.mask, job.past), job.resid
    job.rows[stack.name] = rows
    resid, job.keys = stack(
        resid, rows, tap, start=job.start, stop=job.stop, past=job.past, memory=memory, keep_keys=job.keep_keys
    )
    if job.stop is not None:
        return resid
    resid = stack.finish(resid, tap)
    if not model.cfg.has_unembed:
        return resid
    return model.logits(resid, tap, pos=job.unembed_pos, tokens=job.unembed_tokens)


def run_encoder(model: Transformer, batch: Batch, tap: Tap) -> Memory:
    """What a decoder's cross-attention will read; made once, it serves any number of decoder passes."""
    encoder: Stack | None = model.encoder
    assert encoder is not None
    rows = encoder.rows(batch.tokens.shape[1], batch.mask)
    resid, _ = encoder(encoder.embed_tokens(batch.tokens, rows, tap), rows, tap)
    return Memory(encoder.finish(resid, tap), rows)


def _layer(layer: int, n_layers: int, name: str) -> int:
    if not isinstance(layer, int) or not -n_layers <= layer <= n_layers:
        raise InputError(f"{name} is {layer}; this model has layers 0 to {n_layers - 1}.")
    return layer + n_layers if layer < 0 else layer


def _check_rows(past: KeyValues | None, n_rows: int) -> None:
    stored = {len(keys) for keys, _ in past.layers.values()} if past is not None else set()
    if stored - {1, n_rows}:
        raise InputError(f"The stored keys are of {max(stored)} rows; this batch has {n_rows}. Use past.select(rows).")


def _check_resid(model: Transformer, resid: Any, n_before: int) -> Tensor:
    if not isinstance(resid, Tensor) or not resid.is_floating_point() or resid.ndim != 3:
        found = f"shape {tuple(resid.shape)}, {resid.dtype}" if isinstance(resid, Tensor) else type(resid).__name__
        raise InputError(f"start_at_layer takes a residual [batch, pos, d_model]; this is {found}.")
    if resid.shape[-1] != model.cfg.d_model:
        raise InputError(f"The residual is {resid.shape[-1]} wide; this model's d_model is {model.cfg.d_model}.")
    if not resid.numel():
        raise InputError(f"The residual is empty: its shape is {tuple(resid.shape)}. Give at least one token.")
    if n_before + resid.shape[1] > model.cfg.n_ctx:
        raise InputError(too_long(n_before + resid.shape[1], model.cfg.n_ctx))
    if resid.dtype != model.dtype or resid.device != model.device:
        raise InputError(
            f"The residual is {resid.dtype} on {resid.device}; this model is {model.dtype} on {model.device}. "
            "Convert it with .to(model.device, model.dtype)."
        )
    return resid
