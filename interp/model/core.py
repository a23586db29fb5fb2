"""The transformer itself: parts, weights and the forward pass. `HookedTransformer` adds reading and editing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import CheckpointError, InputError
from interp.model.activations import activation
from interp.model.block import Memory
from interp.model.config import ModelConfig, TransformConfig
from interp.model.derive import book_of, source_table
from interp.model.loss import next_token_loss
from interp.model.norms import Norm
from interp.model.passes import Pass, prepare, run_encoder, run_pass
from interp.model.peers import PEER_METHODS, refuse_keywords
from interp.model.positions import KeyValues
from interp.model.stack import Stack
from interp.model.taps import NO_TAPS, Tap, Taps, Write, active_writes
from interp.model.tokens import Batch, TextMethods
from interp.model.weights import UnembeddingWeights

__all__ = ["ReturnType", "Transformer", "check_weights"]

ReturnType = Literal["logits", "loss", "both"] | None
T = TypeVar("T", bound="Transformer")


class Transformer(TextMethods, UnembeddingWeights, nn.Module):
    """A decoder, an encoder, or both, built from a `ModelConfig`, with raw weights: nothing folded, nothing centred."""

    def __init__(
        self,
        cfg: ModelConfig | object,
        tokenizer: Any = None,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        if not isinstance(cfg, ModelConfig):
            raise InputError(
                f"A model is built from a ModelConfig; this is a {type(cfg).__name__}. ModelConfig.from_dict reads "
                "what to_dict wrote, interp.load reads checkpoints, and docs/architectures.md builds some by hand."
            )
        self.cfg, self.tokenizer = cfg, tokenizer
        with torch.device("meta"):  # weights are made once, from the seed alone
            stacks = {name: Stack(stack, cfg.d_model, cfg.d_vocab, name) for name, stack in cfg.stacks.items()}
            self.encoder = stacks.get("encoder") or (stacks[""] if cfg.decoder is None else None)
            self.decoder = stacks.get("decoder") or (stacks[""] if cfg.encoder is None else None)
            width = cfg.transform.width if cfg.transform else cfg.d_model
            self.transform = Transform(cfg.transform, cfg.d_model) if cfg.transform else None
            self.unembed = nn.Linear(width, cfg.d_vocab, bias=cfg.bias_unembed) if cfg.has_unembed else None
        self.sites = book_of(cfg)
        self._sources = source_table(self.sites, cfg)
        if torch.device(device).type != "meta":
            self.to_empty(device="cpu")
        self._tie()
        if torch.device(device).type != "meta":
            self._init_weights(seed)
            self.to(device=device, dtype=dtype)
        self.eval()

    @classmethod
    def from_weights(
        cls: type[T],
        cfg: ModelConfig,
        weights: Mapping[str, Tensor],
        tokenizer: Any = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> T:
        """A model over given tensors, used as they lie (not copied) where dtype and device already fit."""
        model = cls(cfg, tokenizer, device="meta")
        wanted = {
            name: p
            for name, p in model.named_parameters()
            if not (cfg.tie_word_embeddings and name == "unembed.weight")
        }
        check_weights(wanted, weights)
        given = {id(weights[name]): weights[name] for name in wanted}  # layers may share one tensor
        moved = {key: tensor.detach().to(device=device, dtype=dtype) for key, tensor in given.items()}
        for name in wanted:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(moved[id(weights[name])]))
        model._tie()
        return model

    # ---- forward ----

    def forward(
        self,
        input: Any = None,
        return_type: ReturnType = "logits",
        *,
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: Literal["left", "right"] | None = None,
        attention_mask: Tensor | None = None,
        decoder_input: Any = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        tokens: Tensor | None = None,
        past_kv: KeyValues | None = None,
        unembed_pos: Sequence[int] | Tensor | None = None,
        unembed_tokens: Sequence[int] | Tensor | None = None,
        taps: Taps | None = None,
        **unknown: Any,
    ) -> Any:
        """Logits `[batch pos d_vocab]`, the loss, or both.

        `input` is text, a list of texts, or token ids `[pos]` or `[batch pos]`; with `start_at_layer` it is a
        residual `[batch pos d_model]` entering that layer (`tokens` then serve the loss). `stop_at_layer` returns
        the residual entering that layer. `attention_mask` marks real tokens; positions count those only.
        `past_kv` holds keys and values of tokens before these. `unembed_pos` and `unembed_tokens` limit the logits
        to some positions and tokens. The loss is −log p of each next real token, in nats, averaged unless
        `loss_per_token`.
        """
        job, finish = self._prepared(
            input,
            return_type,
            loss_per_token=loss_per_token,
            tokens=tokens,
            unembed_pos=unembed_pos,
            unembed_tokens=unembed_tokens,
            prepend_bos=prepend_bos,
            padding_side=padding_side,
            attention_mask=attention_mask,
            decoder_input=decoder_input,
            start_at_layer=start_at_layer,
            stop_at_layer=stop_at_layer,
            past_kv=past_kv,
            **unknown,
        )
        return finish(self.run(job, taps if taps is not None else self._standing_taps()))

    def encode(self, input: Any, *, attention_mask: Tensor | None = None) -> Memory:
        """The encoder's output, to be given to any number of decoder passes as `memory=`."""
        if self.encoder is None or self.decoder is None:
            raise InputError("Only a model with an encoder and a decoder can encode apart. Call model(…) instead.")
        return run_encoder(self, self.batch(input, attention_mask=attention_mask), self._standing_taps())

    def run(self, job: Pass, tap: Tap = NO_TAPS) -> Tensor:
        """Make a prepared pass: the residual it stops at, or logits."""
        return run_pass(self, job, tap)

    def logits(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        tap: Tap = NO_TAPS,
        *,
        pos: Sequence[int] | Tensor | None = None,
        tokens: Sequence[int] | Tensor | None = None,
    ) -> Float[Tensor, "batch some_pos some_tokens"]:
        """Unembed an already normed residual, at some positions and for some tokens only where asked."""
        if pos is not None:
            resid = resid[:, _positions(pos, resid.shape[1], resid.device)]
        unembed = self.need_unembed()
        weight, bias = unembed.weight, unembed.bias
        if tokens is not None:
            chosen = self._check_ids(tokens)
            if len(chosen) != 1:
                raise InputError(f"unembed_tokens has shape {tuple(chosen.shape)}. Give a flat list of token ids.")
            chosen = chosen[0]
            weight, bias = weight[chosen], None if bias is None else bias[chosen]
        if self.transform is not None:
            resid = self.transform(resid)
        logits = nn.functional.linear(resid, weight, bias)
        logits = logits if self.cfg.logit_scale == 1.0 else logits * self.cfg.logit_scale
        cap = self.cfg.logit_softcap
        return tap("hook_unembed", logits if cap is None else cap * torch.tanh(logits / cap))

    def extend(
        self,
        input: Any,
        *,
        past: KeyValues | None = None,
        attention_mask: Tensor | None = None,
        memory: Memory | None = None,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch some_pos some_tokens"], KeyValues]:
        """Logits of new tokens after stored ones, and the keys and values of all of them.

        In a model with two stacks the tokens are the decoder's, `memory` is what `encode` made of the encoder's text,
        and the stored keys are those of the decoder's self-attention; those of cross-attention are made anew.
        """
        self.need_unembed()
        if (memory is not None) != (self.encoder is not None and self.decoder is not None):
            needs = "needs memory=model.encode(text), what its decoder reads" if memory is None else "takes no memory"
            raise InputError(f"To extend, this model {needs}.")
        if memory is None:
            job = prepare(self, input, attention_mask=attention_mask, past_kv=past)
        else:
            job = _over(self, memory, input, past, attention_mask)
        job.keep_keys = True
        job.unembed_pos, job.unembed_tokens = options.pop("unembed_pos", None), options.pop("unembed_tokens", None)
        if options:
            raise InputError(f"extend takes no {', '.join(options)}.")
        logits = self.run(job, self._standing_taps())
        assert job.keys is not None
        return logits, job.keys

    def __getattr__(self, name: str) -> Any:
        if name in PEER_METHODS:
            raise AttributeError(f"There is no model.{name}: {PEER_METHODS[name]}")
        return super().__getattr__(name)

    # ---- parts ----

    @property
    def only(self) -> Stack:
        """The one stack of a model that has one."""
        if self.encoder is not None and self.decoder is not None:
            raise InputError("This model has two stacks. Ask model.encoder or model.decoder, e.g. model.decoder.W_Q.")
        stack = self.decoder or self.encoder
        assert stack is not None
        return stack

    @property
    def blocks(self) -> nn.ModuleList:
        return self.only.blocks

    @property
    def embed(self) -> nn.Module:
        return self.only.embed

    @property
    def ln_final(self) -> nn.Module:
        return self.only.ln_final

    @property
    def device(self) -> torch.device:
        return self.main.embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.main.embed.dtype

    @property
    def main(self) -> Stack:
        """The stack whose text is predicted: the decoder, or the encoder of a model without one."""
        stack = self.decoder or self.encoder
        assert stack is not None
        return stack

    def need_unembed(self) -> nn.Linear:
        """The unembedding; `InputError` where the checkpoint has no head that predicts tokens."""
        if self.unembed is None:
            n_layers = self.main.config.n_layers
            raise InputError(
                f"{self.cfg.model_name} has no head that predicts tokens, so it has no logits. For its residuals and "
                f"heads pass return_type=None to run_with_cache; for its last residual, stop_at_layer={n_layers}."
            )
        return self.unembed

    # ---- inside ----

    def _prepared(
        self,
        input: Any,
        return_type: ReturnType,
        *,
        loss_per_token: bool = False,
        tokens: Tensor | None = None,
        unembed_pos: Sequence[int] | Tensor | None = None,
        unembed_tokens: Sequence[int] | Tensor | None = None,
        **options: Any,
    ) -> tuple[Pass, Callable[[Tensor], Any]]:
        """A checked pass, and what makes the caller's output of its logits."""
        refuse_keywords(options)
        if input is None:
            raise InputError("There is nothing to run. Give text, a list of texts, or token ids [batch pos].")
        if return_type not in ("logits", "loss", "both", None):
            raise InputError(f'return_type is {return_type!r}. Choose "logits", "loss", "both" or None.')
        needs_loss = return_type in ("loss", "both")
        if needs_loss and (unembed_pos is not None or unembed_tokens is not None):
            raise InputError("A loss needs all logits. Leave unembed_pos and unembed_tokens out, or ask for logits.")
        job = prepare(self, input, **options)
        if return_type is not None and job.stop is None:
            self.need_unembed()
        job.unembed_pos, job.unembed_tokens = unembed_pos, unembed_tokens
        target = None
        if needs_loss and job.stop is None:
            if self.decoder is None:
                raise InputError("An encoder predicts no next token, so it has no such loss. Ask for logits.")
            target = Batch(self._check_ids(tokens), job.mask) if tokens is not None else job.main
            if target is None:
                raise InputError("A loss needs the tokens that are predicted. Give them as tokens=.")

        def finish(output: Tensor) -> Any:
            if job.stop is not None or return_type == "logits":
                return output
            if target is None:
                return None
            loss = next_token_loss(output, target.tokens, target.mask, per_token=loss_per_token)
            return loss if return_type == "loss" else (output, loss)

        return job, finish

    def _standing_writes(self) -> list[Write]:
        """Hooks of the `with model.hooks` blocks that this thread is in."""
        return [write for owner, write in active_writes.get() if owner == id(self)]

    def _standing_taps(self) -> Tap:
        writes = self._standing_writes()
        return Taps(writes=writes) if writes else NO_TAPS

    def _tie(self) -> None:
        if self.cfg.tie_word_embeddings:
            self.need_unembed().weight = self.main.embed.weight

    def _init_weights(self, seed: int) -> None:
        """Normal weights of standard deviation 0.8 / √d_model, zero biases, unit gains; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.8 / self.cfg.d_model**0.5, generator=generator)
            elif name.rpartition(".")[2] in ("bias", "b"):
                nn.init.zeros_(parameter)
        for module in self.modules():
            if isinstance(module, Norm):
                module.reset()


class Transform(nn.Module):
    """What stands before the unembedding of a masked-token head: a linear map, an activation, a norm."""

    def __init__(self, config: TransformConfig, d_model: int):
        super().__init__()
        self.dense = nn.Linear(d_model, config.width)
        self.act = activation(config.act_fn)
        self.norm = Norm(config.norm, config.width, "")

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos width"]:
        return self.norm(self.act(self.dense(x)), NO_TAPS)


def _over(model: Transformer, memory: Memory, input: Any, past: KeyValues | None, mask: Tensor | None) -> Pass:
    """A pass of the decoder over an encoding that was made before."""
    batch = model.batch(input, attention_mask=mask, n_before=past.n_keys if past is not None else 0)
    if len(batch.tokens) != len(memory.resid):
        raise InputError(
            f"The encoding is of {len(memory.resid)} texts and the decoder gets {len(batch.tokens)}. Pair them."
        )
    return Pass(decoder=batch, memory=memory, past=past)


def check_weights(wanted: Mapping[str, nn.Parameter], given: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra:
        what = [f"lacks {', '.join(missing[:3])}"] if missing else []
        what += [f"holds {', '.join(extra[:3])}, which this architecture has not"] if extra else []
        raise CheckpointError(f"The checkpoint {' and '.join(what)}. Its config and its weights do not fit together.")
    for name, parameter in wanted.items():
        if given[name].shape != parameter.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(given[name].shape)} in the checkpoint; "
                f"its config says {tuple(parameter.shape)}."
            )


def _positions(pos: Sequence[int] | Tensor, n_pos: int, device: torch.device) -> Int[Tensor, " pos"]:
    index = torch.as_tensor(pos, device=device)
    if index.ndim != 1 or index.is_floating_point() or bool(((index < -n_pos) | (index >= n_pos)).any()):
        raise InputError(f"unembed_pos is {index.tolist()}. Give a list of positions from {-n_pos} to {n_pos - 1}.")
    return index
