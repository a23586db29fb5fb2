"""GGUF metadata -> tokenizer: every way of cutting text against the transformers class for it, and what is refused."""

from __future__ import annotations

import struct
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from interp.errors import CheckpointError, UnsupportedModelError
from interp.text import Tokenizer, tokenizer_from_gguf
from interp.text.gguf_vocab import known_pre_tokenizers, read_strings, string_array

TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"


def _tiny(**changes: Any) -> dict[str, Any]:
    """Byte-level: a, b, ab, and `<s>` as a control token; keys of `changes` are without their common prefix."""
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        TOKENS: ["a", "b", "ab", "<s>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3],
        MERGES: ["a b"],
        "tokenizer.ggml.bos_token_id": 3,
    }
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}


def _kinds(metadata: dict[str, Any]) -> Iterator[tuple[str, int]]:
    return zip(metadata[TOKENS], metadata["tokenizer.ggml.token_type"], strict=True)


def _class_tokenizer(module: str, name: str) -> Callable[[dict[str, Any]], Any]:
    def build(metadata: dict[str, Any]) -> Any:
        import importlib

        cls = getattr(importlib.import_module(f"transformers.models.{module}.tokenization_{module}"), name)
        vocabulary = {token: index for index, token in enumerate(metadata[TOKENS])}
        tokenizer = cls(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in metadata[MERGES]])
        specials = [token for token, kind in _kinds(metadata) if kind == 3]
        tokenizer.add_tokens(specials, special_tokens=True)
        return tokenizer

    return build


def _transformers_gguf(metadata: dict[str, Any]) -> Any:
    from transformers import TokenizersBackend
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    names = GGUF_TOKENIZER_MAPPING["tokenizer"].items()
    fields = {name: metadata[f"tokenizer.{key}"] for key, name in names if f"tokenizer.{key}" in metadata}
    backend, _ = convert_gguf_tokenizer("llama", fields)
    return TokenizersBackend(tokenizer_object=backend, bos_token=None, eos_token=None)


PEERS = {
    "gpt-2": _class_tokenizer("gpt2", "GPT2Tokenizer"),
    "default": _class_tokenizer("gpt2", "GPT2Tokenizer"),
    "qwen2": _class_tokenizer("qwen2", "Qwen2Tokenizer"),
    "olmo": _class_tokenizer("gpt_neox", "GPTNeoXTokenizer"),
    "mpt": _class_tokenizer("gpt_neox", "GPTNeoXTokenizer"),
    "llama-bpe": _transformers_gguf,
    "smaug-bpe": _transformers_gguf,
    "deepseek-r1-qwen": _transformers_gguf,
    "tekken": _transformers_gguf,
}


@pytest.mark.parametrize("pre", PEERS)
def test_each_way_of_cutting_text_agrees_with_its_class(
    smollm_metadata: dict[str, Any], texts: list[str], pre: str
) -> None:
    metadata = {**smollm_metadata, "tokenizer.ggml.pre": pre}
    ours, theirs = tokenizer_from_gguf(metadata), PEERS[pre](metadata)
    for text in texts:
        assert ours.encode(text, prepend_bos=False) == theirs.encode(text, add_special_tokens=False), text


@pytest.mark.parametrize(("pre", "nfc"), [("starcoder", False), ("refact", False), ("command-r", True)])
def test_the_other_digit_wise_ways_cut_like_smollm(
    smollm_metadata: dict[str, Any], smollm: Tokenizer, texts: list[str], pre: str, nfc: bool
) -> None:
    other = tokenizer_from_gguf({**smollm_metadata, "tokenizer.ggml.pre": pre})
    for text in texts[::5]:
        assert other.encode(text) == smollm.encode(unicodedata.normalize("NFC", text) if nfc else text), text


def test_the_transformers_split_of_llama_three_is_the_published_one() -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    from interp.text import gguf_vocab

    for pre in ("llama-bpe", "qwen2", "tekken", "deepseek-r1-qwen"):
        assert gguf_vocab._PRE[pre].split == GGUF_PRE_TOKENIZER_SPLITS[pre]


def test_a_whole_word_that_no_merge_reaches_is_one_token_for_llama_three_only() -> None:
    lists = {"tokens": ["a", "b", "c", "abc", "ab", "<s>"], "token_type": [1, 1, 1, 1, 1, 3], "bos_token_id": 5}
    assert tokenizer_from_gguf(_tiny(**lists, pre="llama-bpe")).encode("abc", prepend_bos=False) == [3]
    assert tokenizer_from_gguf(_tiny(**lists, pre="gpt-2")).encode("abc") == [4, 2]


def test_bos_is_what_the_file_says_and_else_what_its_kind_is_used_to() -> None:
    assert tokenizer_from_gguf(_tiny(pre="llama-bpe")).encode("ab") == [3, 2]
    assert tokenizer_from_gguf(_tiny(pre="llama-bpe", add_bos_token=False)).encode("ab") == [2]
    assert tokenizer_from_gguf(_tiny(pre="gpt-2")).encode("ab") == [2]
    assert tokenizer_from_gguf(_tiny(pre="gpt-2", add_bos_token=True)).encode("ab") == [3, 2]
    assert tokenizer_from_gguf(_tiny(add_eos_token=True, eos_token_id=3)).encode("ab") == [2, 3]
    assert tokenizer_from_gguf(_tiny(add_bos_token=True, bos_token_id=None)).encode("ab") == [2]


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    tokens = ["a", "b", "ab", "<s>", "<think>", "a b", "<｜x｜>", "[PAD7]"]
    tokenizer = tokenizer_from_gguf(_tiny(tokens=tokens, token_type=[1, 1, 1, 3, 4, 4, 3, 5]))
    assert tokenizer.n_vocab == 8
    assert tokenizer.encode("a<think>b<s>a b<｜x｜>") == [0, 4, 1, 3, 5, 6]
    assert tokenizer.decode([0, 4, 3, 6]) == "a<think><s><｜x｜>"
    assert tokenizer.decode([0, 4, 3, 6], skip_special_tokens=True) == "a<think>"
    assert 7 not in tokenizer.encode("[PAD7]")  # unused tokens are never produced, and still have a name
    assert tokenizer.str_tokens([7]) == ["[PAD7]"]


def test_ordinary_tokens_left_in_plain_spelling_are_respelled() -> None:
    tokenizer = tokenizer_from_gguf(_tiny(tokens=["a", "b", "ab", "<s>", "你"], token_type=[1, 1, 1, 3, 1]))
    assert tokenizer.backend.id_to_token(4) == "ä½ł"
    assert tokenizer.decode([0, 4]) == "a你"


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    from interp.text.gguf_vocab import _byte_alphabet

    assert set(_byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert len(_byte_alphabet()) == 256
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for character in "\x00\n !~\x7f":
        assert cut.pre_tokenize_str(character)[0][0] == _byte_alphabet()[ord(character)]


def test_building_takes_no_half_second(smollm_metadata: dict[str, Any]) -> None:
    began = time.perf_counter()
    tokenizer_from_gguf(smollm_metadata)
    assert time.perf_counter() - began < 0.5  # 0.06 s on a quiet machine


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "no_vocab", "gemma4", None, ["gpt2"]])
def test_other_kinds_of_vocabulary_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"known are gpt2, llama\. Load") as caught:
        tokenizer_from_gguf(_tiny(model=kind))
    assert repr(kind) in str(caught.value)


def test_an_unknown_way_of_cutting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match="'bloom' way") as caught:
        tokenizer_from_gguf(_tiny(pre="bloom"))
    assert all(name in str(caught.value) for name in known_pre_tokenizers())
    assert {"smollm", "default", "gpt-2", "llama-bpe", "qwen2"} <= set(known_pre_tokenizers())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokens": None}, "no vocabulary"),
        ({"tokens": []}, "no vocabulary"),
        ({"tokens": ["a", "b", "a", "<s>"]}, "'a' more than once"),
        ({"token_type": [1, 1]}, "token_type has 2 entries for 4 tokens"),
        ({"merges": None}, "no merges"),
        ({"merges": ["a z"]}, "merges do not fit"),
        ({"merges": ["ab"]}, "merges do not fit"),
        ({"bos_token_id": 4}, "bos_token_id is 4, but the vocabulary has 4 tokens"),
        ({"model": "llama", "scores": None}, "no scores"),
        ({"model": "llama", "scores": [0.0]}, "scores has 1 entries for 4 tokens"),
    ],
)
def test_damaged_lists_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        tokenizer_from_gguf(_tiny(**changes))


@pytest.mark.parametrize("key", [TOKENS, MERGES])
def test_string_arrays_read_like_the_fields_contents(gguf_reader: Any, gguf_file: Any, key: str) -> None:
    field = gguf_reader.fields[key]
    expected = field.contents()
    assert string_array(field) == expected
    with open(gguf_file, "rb") as file:
        head = file.read(4 << 20)
    start = field.offset + 8 + len(key) + 4 + 4 + 8  # key length, key, value type, element type, count
    strings, end = read_strings(head, start, len(expected))
    assert strings == expected
    assert end == start + sum(8 + len(text.encode()) for text in expected)
    assert read_strings(memoryview(head), start, 10)[0] == expected[:10]


def test_a_damaged_string_array_is_refused() -> None:
    sound = struct.pack("<Q", 2) + b"ab"
    assert read_strings(sound, 0, 1) == (["ab"], 10)
    for broken in (sound[:-1], sound[:5], struct.pack("<Q", 2**62) + b"ab", struct.pack("<Q", 2) + b"\xff\xfe"):
        with pytest.raises(CheckpointError, match="string array is"):
            read_strings(broken, 0, 1)
