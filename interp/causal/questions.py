"""What is asked of a model: pairs and a metric, or plain texts and their loss, turned into the texts to be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.causal.texts import Text
from interp.errors import InputError
from interp.metrics import BoundMetric, ResidualMetric, bind_metric, next_token_loss_metric, residual_metric
from interp.model.taps import active_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import check_reads, check_sizes
from interp.sites import Site

__all__ = ["Asked", "Question", "ask", "named_positions", "pose", "position_tokens", "reference_texts"]

Which = Literal["clean", "corrupt"]


@dataclass(frozen=True)
class Question:
    """What is asked of a model: pairs, and the metric bound to them."""

    model: HookedTransformer
    pairs: PromptPairs
    metric: BoundMetric

    def texts(self, which: Which) -> list[Text]:
        """One text for each row of the metric: the clean or corrupt prompt, and the answer's tokens it reads on."""
        made = []
        for row in self.metric.rows:
            prompt = getattr(self.pairs, which)[row.pair]
            if self.two_stacks:
                decoder = getattr(self.pairs, f"{which}_decoder")[row.pair]
                made.append(Text((*decoder, *row.continuation), tuple(row.reads), tuple(prompt)))
            else:
                made.append(Text((*prompt, *row.continuation), tuple(row.reads)))
        return made

    @property
    def two_stacks(self) -> bool:
        return self.model.encoder is not None and self.model.decoder is not None

    def counts_in_encoder(self, site: Site) -> bool:
        """Whether a site's positions are those of the encoder's text."""
        in_memory = site.part == "cross_attn" and site.name in ("hook_k", "hook_v", "hook_rot_k")
        return self.two_stacks and (site.stack == "encoder" or in_memory)

    def prompt_length(self, text: int, in_encoder: bool) -> int:
        """Tokens of a text's prompt, without the answer's."""
        pair = self.metric.rows[text].pair
        if self.two_stacks and not in_encoder:
            return len(self.pairs.clean_decoder[pair])
        return len(self.pairs.clean[pair])

    @property
    def items(self) -> tuple[str, ...]:
        return self.pairs.items or tuple(str(i) for i in range(len(self.pairs)))


def pose(model: Any, pairs: Any, metric: Any) -> Question:
    """Check that a model can be asked about these pairs; raises `InputError` if not."""
    if not isinstance(model, HookedTransformer):
        raise InputError(f"This takes a loaded model, not {model!r}. Load it first: interp.load(…).")
    if not isinstance(pairs, PromptPairs):
        raise InputError(f"This takes PromptPairs, not {type(pairs).__name__}. Make them: PromptPairs.from_text(…).")
    two = model.encoder is not None and model.decoder is not None
    if two != bool(pairs.clean_decoder):
        what = (
            "needs pairs that say what its decoder has read: decoder=" if two else "has one stack; leave decoder= out"
        )
        raise InputError(f"This model {what}.")
    check_sizes(pairs, model)
    if any(owner == id(model) for owner, _ in active_writes.get()):
        raise InputError("This would run without the hooks of `with model.hooks(…)` around it. Call it outside.")
    if model.unembed is None and not isinstance(metric, ResidualMetric):
        raise InputError(
            f"{model.cfg.model_name} has no head that predicts tokens, so it has no logits for metric={metric!r}. "
            "Measure its residuals: metric=embedding_similarity() or residual_metric(function), both of interp.metrics."
        )
    bound = bind_metric(metric, pairs, n_vocab=model.cfg.d_vocab, device=model.device, model=model)
    if bound.needs_read and pairs.reads_last:
        check_reads(model)
    return Question(model, pairs, bound)


def named_positions(pairs: PromptPairs, name: str, pair: int, *, in_encoder: bool) -> tuple[int, ...]:
    """The tokens of a named position in one pair, where the names count: with two texts in the encoder's, but for
    "read", which is the decoder's."""
    is_read = name == "read" and "read" not in pairs.positions
    if pairs.clean_decoder and is_read and in_encoder:
        raise InputError("'read' is a position in the decoder's text, and this counts in the encoder's. Give another.")
    if pairs.clean_decoder and not is_read and not in_encoder:
        raise InputError(
            f"{name!r} is a position in the encoder's text: named positions count in the encoder's text, and this "
            "counts in the decoder's. Give indices, or 'read'."
        )
    return pairs.span(name, pair)


def position_tokens(question: Question, which: Which, in_encoder: bool) -> dict[str, list[str]]:
    """What stands at each position of the edited prompt, for the labels of a map; nothing for several prompts."""
    if len(question.pairs) > 1:
        return {}
    row = getattr(question.pairs, which if in_encoder or not question.two_stacks else f"{which}_decoder")[0]
    return {"tokens": [question.pairs.spell((token,)) for token in row]}


@dataclass(frozen=True)
class Asked:
    """The texts that an analysis of one run edits, their metric, and (of pairs) the corrupt texts beside them."""

    texts: list[Text]
    corrupt: list[Text]
    metric: BoundMetric
    items: tuple[str, ...]
    templates: tuple[str, ...]
    name: str
    asked_for: Any = None  # the metric as the user gave it


def ask(model: Any, data: Any, metric: Any = None, counted: Any = None) -> Asked:
    """Pairs by a metric of theirs, or texts or token ids by their next-token loss."""
    if isinstance(data, PromptPairs):
        if counted is not None:
            raise InputError("counted chooses the tokens of a loss; pairs are judged by metric=. Leave it out.")
        question = pose(model, data, "logit_diff" if metric is None else metric)
        texts, corrupt = question.texts("clean"), question.texts("corrupt")
        return Asked(texts, corrupt, question.metric, question.items, data.templates, "clean prompts", metric)
    if not isinstance(model, HookedTransformer):
        raise InputError(f"This takes a loaded model, not {model!r}. Load it first: interp.load(…).")
    if metric not in (None, "loss"):
        raise InputError(f"Plain texts are judged by their loss, not by {metric!r}. Give PromptPairs for that metric.")
    if model.decoder is None or model.encoder is not None:
        raise InputError("Only a decoder by itself has a next-token loss. Give PromptPairs.")
    batch = _batch_of(model, data)
    rows = _unpadded(batch) if batch is not None else _rows_of(model, data)
    bound = next_token_loss_metric(rows, _counted(rows, counted, batch))
    texts = [Text(row, one.reads) for row, one in zip(rows, bound.rows, strict=True)]
    return Asked(texts, [], bound, tuple(str(i) for i in range(len(rows))), (), "the texts themselves")


def reference_texts(model: HookedTransformer, asked: Asked, reference: Any) -> Asked:
    """The texts that means and resamples are taken from: what the user gave, else the corrupt prompts, else the same
    texts."""
    if isinstance(reference, PromptPairs):
        # Only the texts are wanted, so any metric would do, unless the answers are read on behind the prompts: then
        # means and donors need what stands there too.
        longer = any(row.continuation for row in asked.metric.rows)
        given = ask(model, reference, asked.asked_for if longer else residual_metric(_of_nothing, at="first"))
        return Asked(given.texts, [], given.metric, given.items, given.templates, "clean prompts of other pairs")
    if reference is not None:
        rows = _rows_of(model, reference)
        pairs = [Text(row, (len(row) - 1,)) for row in rows]
        bound = next_token_loss_metric(rows) if all(len(row) > 1 for row in rows) else asked.metric
        return Asked(pairs, [], bound, tuple(str(i) for i in range(len(rows))), (), "texts that were given")
    if asked.corrupt:
        return Asked(asked.corrupt, [], asked.metric, asked.items, asked.templates, "corrupt prompts")
    return asked


def _of_nothing(resid: Tensor, pair: Tensor) -> Tensor:
    return resid[:, 0, 0]


def _rows_of(model: HookedTransformer, data: Any) -> list[tuple[int, ...]]:
    """Token rows without padding, from text, texts, ids, rows of ids, or a batch with its mask."""
    batch = _batch_of(model, data)
    if batch is not None:
        return _unpadded(batch)
    return [_unpadded(model.batch(torch.tensor([list(row)])))[0] for row in data]


def _batch_of(model: HookedTransformer, data: Any) -> Batch | None:
    """Data as a rectangle; None for rows of ids that differ in length."""
    if isinstance(data, Batch):
        return data
    ragged = isinstance(data, Sequence) and not isinstance(data, str) and len(data) > 0
    if ragged and all(isinstance(row, Sequence) and not isinstance(row, str) for row in data):
        return None
    return model.batch(data)


def _unpadded(batch: Batch) -> list[tuple[int, ...]]:
    mask = batch.mask if batch.mask is not None else torch.ones_like(batch.tokens, dtype=torch.bool)
    return [tuple(row[real].tolist()) for row, real in zip(batch.tokens, mask, strict=True)]


def _counted(rows: Sequence[tuple[int, ...]], counted: Any, batch: Batch | None) -> list[list[int]] | None:
    """Positions of the counted tokens of each row, padding left out: from a mask over the batch's columns, or from
    lists of positions among the row's own tokens."""
    if counted is None:
        return None
    if isinstance(counted, np.ndarray):
        counted = torch.from_numpy(counted)
    if not isinstance(counted, Tensor) and any(isinstance(one, (bool, np.bool_)) for row in counted for one in row):
        raise InputError("counted holds lists of True and False. Give a boolean tensor, or lists of positions.")
    if isinstance(counted, Tensor) and counted.dtype != torch.bool:
        raise InputError(f"counted is a tensor of {counted.dtype}. Give a boolean one, or lists of positions.")
    if not isinstance(counted, Tensor):
        return [[int(one) for one in row] for row in counted]
    shape = (len(rows), max(map(len, rows))) if batch is None else tuple(batch.tokens.shape)
    if tuple(counted.shape) != shape:
        raise InputError(f"counted has shape {tuple(counted.shape)}; the texts have {shape}. Make them alike.")
    if batch is not None and batch.mask is not None:
        if bool((counted.to(batch.mask.device) & ~batch.mask).any()):
            raise InputError("counted marks padding. Mark real tokens only.")
        counted = [row[real] for row, real in zip(counted.cpu(), batch.mask.cpu(), strict=True)]
    return [row.nonzero()[:, 0].tolist() for row in counted]
