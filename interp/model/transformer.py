"""The hooked transformer: a forward pass whose every query, key, value and head output can be read and edited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, Literal

import torch

from interp.errors import InputError
from interp.model.block import Memory
from interp.model.cache import ActivationCache, PosSlice
from interp.model.core import ReturnType, Transformer
from interp.model.generate import Sampling, generate_tokens
from interp.model.passes import run_encoder
from interp.model.reading import Reading
from interp.model.taps import HookSpec, Taps, active_writes, make_writes
from interp.sites import SiteFilter

__all__ = ["HookedTransformer"]


class HookedTransformer(Transformer):
    """A transformer whose sites can be read and edited, call by call.

    Nothing is ever registered on the model: reads and edits belong to a call (or to this thread's `with hooks`),
    so threads may share one.
    """

    @classmethod
    def from_pretrained(cls, name: Any, **options: Any) -> HookedTransformer:
        """The same as `interp.load`, under the name that TransformerLens gave it."""
        # the loader stands above this room
        return import_module("interp.families.load").load(name, **_without_peer_options(options))

    from_pretrained_no_processing = from_pretrained  # weights are never processed

    def to_hf_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights as they are now, under the names and in the layout of the hub's checkpoints.

        The names are those of the live model with its head in transformers 5, tied ones too, so that its
        `load_state_dict` takes them. As in `state_dict()` tensors share memory with the model, unless they had to be
        rearranged. Rows of position tables that stand for padding were not kept: they are zeros here. Heads that were
        left out (poolers, classifiers) are missing.

        Raises `InputError` for a model that was built by hand, for weights that checkpoints of the family have no place
        for, and where weights that they hold once have come to differ.
        """
        base = import_module("interp.families.base")  # stands above this room, as the loader does
        weights = {name: weight.detach() for name, weight in self.named_parameters(remove_duplicate=False)}
        return base.family_named(self.cfg.family).weights_to_hf(weights, self.cfg)

    def run_with_cache(
        self,
        input: Any,
        names_filter: SiteFilter = None,
        *,
        pos_slice: PosSlice = None,
        device: torch.device | str | None = None,
        stop_at_layer: int | None = None,
        incl_bwd: bool = False,
        remove_batch_dim: bool = False,
        return_type: ReturnType = "logits",
        fwd_hooks: HookSpec = (),
        **options: Any,
    ) -> tuple[Any, ActivationCache]:
        """The output and an `ActivationCache` of what `names_filter` picks (None: everything).

        What follows from other kept tensors is computed on access, so that all sites together cost little more than
        a plain pass; asking for scores or patterns alone makes and stores them. `pos_slice` keeps some positions,
        `device` moves what is kept. `incl_bwd` needs `return_type="loss"` and adds each site's gradient as
        `cache.grad(site)`; parameters' own gradients are left alone.
        """
        if incl_bwd and return_type != "loss":
            raise InputError('incl_bwd needs a scalar to differentiate. Pass return_type="loss".')
        reading = Reading(self.cfg, self.sites, names_filter, pos_slice, device, incl_bwd, self._sources)
        own = make_writes(self.sites, fwd_hooks)
        writes = [*self._standing_writes(), *own]
        with torch.enable_grad() if incl_bwd else nullcontext():
            options = _without_peer_options(options)
            job, finish = self._prepared(input, return_type, stop_at_layer=stop_at_layer, **options)
            taps = reading.taps(job, writes)
            output = finish(self.run(job, taps))
        for write in own:
            write.must_have_fired()
        cache = reading.cache(job, taps, output, model=self)
        return output, (cache.remove_batch_dim() if remove_batch_dim else cache)

    def run_with_hooks(
        self,
        input: Any,
        *,
        fwd_hooks: HookSpec = (),
        bwd_hooks: HookSpec = (),
        **options: Any,
    ) -> Any:
        """The output with some sites edited. `fn(tensor, hook)` returns the new tensor, or edits its copy in place.

        Raises `HookError` for a hook that never fires or returns another shape, dtype or device. Backward hooks get
        each site's gradient when the output is differentiated.
        """
        writes = [*make_writes(self.sites, fwd_hooks), *make_writes(self.sites, bwd_hooks, backward=True)]
        taps = Taps(writes=[*self._standing_writes(), *writes])
        output = self(input, taps=taps, **_without_peer_options(options))
        for write in writes:
            write.must_have_fired()
        return output

    @contextmanager
    def hooks(self, fwd_hooks: HookSpec = (), bwd_hooks: HookSpec = ()) -> Iterator[HookedTransformer]:
        """Edits that hold for this thread's calls inside the block. A hook that never fired in it raises at the end."""
        writes = [*make_writes(self.sites, fwd_hooks), *make_writes(self.sites, bwd_hooks, backward=True)]
        token = active_writes.set((*active_writes.get(), *((id(self), write) for write in writes)))
        try:
            yield self
        finally:
            active_writes.reset(token)
        for write in writes:
            write.must_have_fired()

    def generate(
        self,
        input: Any,
        max_new_tokens: int = 10,
        *,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prepend_bos: bool | None = None,
        attention_mask: Any = None,
        decoder_input: Any = None,
        seed: int = 0,
        return_type: Literal["input", "tokens", "str"] = "input",
        **peer_options: Any,
    ) -> Any:
        """The input with a continuation: text if text came in ("input"), or as asked. Several texts are padded left.

        In a model with two stacks the encoder reads `input` once, and what goes on is `decoder_input`: the tokens that
        its decoder begins with, such as its start token. `attention_mask` is the encoder's.
        """
        peer_options.pop("padding_side", None)  # generation pads on the left
        if unknown := _without_peer_options(peer_options):
            raise InputError(f"generate takes no {', '.join(unknown)}.")
        if self.decoder is None:
            raise InputError("An encoder predicts no next token, so it cannot generate. Run it with model(…).")
        if (decoder_input is None) != (self.encoder is None):
            what = (
                "needs decoder_input=, the tokens its decoder begins with" if self.encoder else "takes no decoder_input"
            )
            raise InputError(f"To generate, this model {what}.")
        self.need_unembed()
        memory = None
        if decoder_input is not None:
            memory = self._encoding(input, prepend_bos, attention_mask)
            input, attention_mask = decoder_input, None
        is_text = isinstance(input, str) or (isinstance(input, Sequence) and any(isinstance(x, str) for x in input))
        batch = self.batch(
            input,
            prepend_bos=prepend_bos,
            padding_side="left" if is_text else None,
            attention_mask=attention_mask,
        )
        stop_ids = _stop_ids(self.tokenizer, eos_token_id) if stop_at_eos else frozenset()
        room = self.cfg.n_ctx - batch.tokens.shape[1]
        if max_new_tokens < 1 or max_new_tokens > room:
            raise InputError(f"max_new_tokens is {max_new_tokens}; after this prompt there is room for 1 to {room}.")
        pad_id = getattr(self.tokenizer, "pad_id", None)
        new = generate_tokens(
            self,
            batch,
            Sampling(do_sample, temperature, top_k, top_p),
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            pad_id=pad_id if pad_id is not None else 0,
            generator=torch.Generator().manual_seed(seed),
            memory=memory,
        )
        if return_type == "tokens" or (return_type == "input" and not is_text):
            return torch.cat([batch.tokens, new], dim=1)
        masks = batch.mask if batch.mask is not None else torch.ones_like(batch.tokens, dtype=torch.bool)
        texts = [
            str(self.to_string([*row[mask].tolist(), *_until_stop(tail.tolist(), stop_ids)]))
            for row, mask, tail in zip(batch.tokens, masks, new, strict=True)
        ]
        return texts if isinstance(input, Sequence) and not isinstance(input, str) else texts[0]

    @torch.no_grad()
    def _encoding(self, input: Any, prepend_bos: bool | None, attention_mask: Any) -> Memory:
        batch = self.batch(input, prepend_bos=prepend_bos, attention_mask=attention_mask)
        assert self.encoder is not None
        return run_encoder(self, batch, self._standing_taps())


def _until_stop(tokens: list[int], stop_ids: frozenset[int]) -> list[int]:
    """A row's own continuation: what follows its stop token is padding."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop_ids]
    return tokens[: ends[0]] if ends else tokens


def _stop_ids(tokenizer: Any, asked: int | Sequence[int] | None) -> frozenset[int]:
    if asked is not None:
        return frozenset([asked] if isinstance(asked, int) else asked)
    eos = getattr(tokenizer, "eos_id", None)
    return frozenset() if eos is None else frozenset([eos])


# Keywords that TransformerLens users type: what they may say here, and what to do for the rest.
_FOLDED = "Weights stay as they are; interp.fold_norms(model) returns a folded copy."
_PEER_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "fold_ln": ((False,), _FOLDED),
    "center_unembed": ((False,), _FOLDED),
    "center_writing_weights": ((False,), _FOLDED),
    "fold_value_biases": ((False,), _FOLDED),
    "refactor_factored_attn_matrices": ((False,), _FOLDED),
    "reset_hooks_end": ((True,), "Hooks belong to the call; for hooks that stay, use with model.hooks(…)."),
    "clear_contexts": ((True, False), ""),
    "return_cache_object": ((True,), "The cache is a mapping already."),
    "verbose": ((True, False), ""),
    "use_past_kv_cache": ((True,), "Stored keys are always used."),
    "freq_penalty": ((0, 0.0), "It is not implemented."),
}


def _without_peer_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are ours; one of TransformerLens' that asks for something else raises with the way to get it."""
    for name in options.keys() & _PEER_OPTIONS.keys():
        allowed, instead = _PEER_OPTIONS[name]
        if options[name] not in allowed:
            raise InputError(f"{name}={options[name]!r} is not to be had here. {instead}")
    return {name: value for name, value in options.items() if name not in _PEER_OPTIONS}
