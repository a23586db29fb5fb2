"""Small files in the layouts of BLiMP, Winogender, CounterFact and known_1000, and tiny models that read them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from interp.model.transformer import HookedTransformer
from interp.text import Tokenizer
from tests.model.conftest import ZOO, _one_thread, randomize, unchecked

__all__ = ["_one_thread", "unchecked"]

Write = Callable[..., Path]
WORDS = [
    "[PAD]", "<s>", "[UNK]", "[MASK]", "[CLS]", "[SEP]", "the", "a", "cat", "cats", "dog", "dogs", "sees", "see",
    "sleeps", "sleep", ".", "baker", "guest", "told", "that", "he", "she", "they", "him", "her", "them", "could",
    "was", "paid", "pilot", "Rome", "Oslo", "Bergen", "Turin", "Como", "Italy", "Norway", "Lake", "of", "in", "is",
    "lies", "capital", "north", "old", "very", "red", "and", "bread",
]  # fmt: skip
GOOD, BAD = ["the cats see the old dog .", "a cat sleeps ."], ["the cats sees the old dog .", "a cat sleep ."]
BLIMP = [
    {
        "sentence_good": good,
        "sentence_bad": bad,
        "one_prefix_prefix": good.rsplit(" ", 2)[0],
        "field": "morphology",
        "linguistics_term": "agreement",
        "UID": "verb_number",
        "simple_LM_method": True,
        "one_prefix_method": i == 0,
        "two_prefix_method": False,
        "lexically_identical": False,
        "pairID": str(i),
    }
    for i, (good, bad) in enumerate(zip(GOOD, BAD, strict=True))
]
KNOWN = [
    {"known_id": i, "subject": subject, "attribute": attribute, "template": "{} lies in", "prediction": " the north",
     "prompt": f"the {subject} lies in", "relation_id": "P17"}
    for i, (subject, attribute) in enumerate(
        [("Rome", "Italy"), ("Oslo", "Norway"), ("Turin", "Italy"), ("Lake Como", "Italy")]
    )
]  # fmt: skip
COUNTERFACT = [
    {
        "case_id": 7 + i,
        "pararel_idx": 3,
        "requested_rewrite": {
            "prompt": "the capital of {} is",
            "relation_id": "P36",
            "target_new": {"str": new, "id": "Q1"},
            "target_true": {"str": true, "id": "Q2"},
            "subject": subject,
        },
        "paraphrase_prompts": [f"very old {subject} is"],
        "neighborhood_prompts": [],
        "attribute_prompts": [],
        "generation_prompts": [],
    }
    for i, (subject, true, new) in enumerate([("Italy", "Rome", "Turin"), ("Norway", "Oslo", "Rome")])
]


def schema(answer: int, sentence: str, people: str = "baker.guest") -> list[tuple[str, str]]:
    """The three variants of one sentence."""
    pronouns = {"male": "he", "female": "she", "neutral": "they"}
    return [(f"{people}.{answer}.{one}.txt", sentence.replace("PRO", word)) for one, word in pronouns.items()]


WINOGENDER = [
    *schema(1, "the baker told the guest that PRO could see ."),
    *schema(0, "the baker told the guest that PRO was paid ."),
]


def table(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{a}\t{b}\n" for a, b in [("sentid", "sentence"), *rows])


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file: text, or bytes as they are; with `.gz` at the end of its name packed."""

    def make(name: str, content: str | bytes) -> Path:
        data = content.encode("utf-8") if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return make


def tokenizer(*, encoder: bool = False, bos: bool = True) -> Tokenizer:
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(WORDS[:6])
    if encoder:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
        )
    bos_id = 1 if bos and not encoder else None
    mask = {"mask_id": 3} if encoder else {}
    return Tokenizer(backend, add_bos=False, bos_id=bos_id, eos_id=None, pad_id=0, unk_id=2, **mask)


_MADE: dict[tuple[str, bool], HookedTransformer] = {}


def reader(name: str, *, bos: bool = True) -> HookedTransformer:
    """A tiny random model of a layout of the zoo that reads WORDS."""
    if (name, bos) not in _MADE:
        encoder = ZOO[name].encoder is not None and ZOO[name].decoder is None
        _MADE[name, bos] = randomize(HookedTransformer(ZOO[name], tokenizer(encoder=encoder, bos=bos)))
    return _MADE[name, bos]


@pytest.fixture
def llama() -> Iterator[HookedTransformer]:
    with torch.no_grad():
        yield reader("llama")


assert len(WORDS) == 50
