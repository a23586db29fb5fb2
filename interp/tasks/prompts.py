"""From filled templates to a task: texts, the characters where named things stand, and the tokens they become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.base import Request, Task, model_kind

if TYPE_CHECKING:
    from interp.tasks.base import TaskDefinition

__all__ = ["Filled", "Prompt", "fill", "made_task", "metric_of", "task_of", "with_bos"]


@dataclass(frozen=True)
class Filled:
    """A template with its words; `spans` are the characters of each slot."""

    text: str
    spans: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Prompt:
    """One pair as text. `positions` name characters of the clean text; `answer` and `foil` begin with their space."""

    clean: Filled
    corrupt: Filled
    answer: str
    foil: str
    positions: Mapping[str, tuple[int, int]]
    item: str
    template: str
    labels: Mapping[str, Any] = field(default_factory=dict)


def fill(template: str, words: Mapping[str, str]) -> Filled:
    """Put words into a template's `{slots}`, each of which stands once."""
    text, spans = "", {}
    for piece in re.split(r"(\{\w+\})", template):
        if piece.startswith("{"):
            word = words[piece[1:-1]]
            spans[piece[1:-1]] = (len(text), len(text) + len(word))
            piece = word
        text += piece
    return Filled(text, spans)


def with_bos(model: HookedTransformer, bos: bool) -> bool | None:
    """What `prepend_bos` is to be: an encoder's frame stays as it is, and a model without BOS gets none."""
    if model.tokenizer is None or model_kind(model) == "encoder" or model.tokenizer.bos_id is None:
        return None
    return bos


def task_of(
    definition: TaskDefinition,
    model: HookedTransformer,
    request: Request,
    prompts: Sequence[Prompt],
    about: Mapping[str, Any],
    *,
    read: str = "",
) -> Task:
    """A task of texts. `read` is the position whose logits an encoder is asked for; a decoder answers at the end."""
    encode, encoder = model.tokenizer.backend.encode, model_kind(model) == "encoder"
    bos = with_bos(model, request.bos)
    spans = {name: [one.positions[name] for one in prompts] for name in prompts[0].positions}
    spans["END"] = [(len(one.clean.text) - 1, len(one.clean.text)) for one in prompts]
    pairs = PromptPairs.from_text(
        model,
        [one.clean.text for one in prompts],
        [one.corrupt.text for one in prompts],
        *([tuple(encode(getattr(p, side), add_special_tokens=False).ids) for p in prompts] for side in _SIDES),
        positions=spans,
        items=[one.item for one in prompts],
        templates=[one.template for one in prompts],
        prepend_bos=bos,
        read=0 if encoder else None,
    )
    if encoder:
        pairs = replace(pairs, read=tuple(span[0] for span in pairs.positions[read]))
    if definition.derive is not None:
        pairs = definition.derive(pairs)
    labels = {name: tuple(one.labels[name] for one in prompts) for name in prompts[0].labels}
    labels |= {
        "clean_text": tuple(p.clean.text for p in prompts),
        "corrupt_text": tuple(p.corrupt.text for p in prompts),
    }
    labels |= {f"{side}_text": tuple(getattr(one, side) for one in prompts) for side in _SIDES}
    return made_task(definition, request, pairs, labels, {"bos": bool(bos), **about})


def made_task(
    definition: TaskDefinition, request: Request, pairs: PromptPairs, labels: Mapping[str, tuple], about: Mapping
) -> Task:
    """Pairs and labels with what every task says of itself."""
    by_split = labels.get("split", ("given",) * len(pairs))
    counts = {one: len({i for i, s in zip(pairs.items, by_split, strict=True) if s == one}) for one in request.splits}
    facts = {
        "definition": definition.definition,
        "metric": definition.metric or metric_of(pairs),
        "n": request.n,
        "items": counts,
    }
    split = request.splits[0] if len(request.splits) == 1 else "all"
    return Task(
        definition.name,
        pairs,
        None,
        dict(labels),
        request.corruption,
        definition.corruptions,
        split,
        request.seed,
        {**facts, **about},
    )


def metric_of(pairs: PromptPairs) -> str:
    """The metric that suits the answers: several tokens are scored by their log-probability."""
    several = any(len(one) > 1 for sets in (*pairs.answer, *pairs.foil) for one in sets)
    return "log_prob_diff" if several else "logit_diff"


_SIDES = ("answer", "foil")
