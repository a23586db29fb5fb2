"""The "llama" kind of vocabulary against a plain SentencePiece merge loop, the library itself, and transformers.

transformers 5 puts the prefix space neither before a text that begins with a space nor after a special token;
SentencePiece and llama.cpp do. So it is compared on texts where that does not arise.
"""

from __future__ import annotations

import io
import random
from itertools import pairwise
from typing import Any

import pytest

from interp.text import Tokenizer, tokenizer_from_gguf

SENTENCES = """
    the quick brown fox jumps over the lazy dog while a very old man watches them and thinks of the long winter
    nights when nothing ever happened in this town except for banana bread baking aaaa hahaha mississippi 2024 naïve
    café
"""
CORPUS = SENTENCES.split()


def _metadata(**changes: Any) -> dict[str, Any]:
    """`<unk> <s> </s>`, 256 bytes, characters, and pieces of words in a shuffled order of scores."""
    words = ["▁" + word for word in CORPUS]
    characters = sorted(set("".join(words)) - {"z"})
    pieces = sorted({word[i:j] for word in words for i in range(len(word)) for j in range(i + 2, i + 7)})
    pieces = [piece for piece in pieces if len(piece) > 1 and "z" not in piece]  # z is unknown
    random.Random(3).shuffle(pieces)
    pieces.sort(key=len)  # short ones first, so that long ones are reached
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *characters]
    n_first = 259
    scores = [0.0] * n_first + [-float(rank) for rank in range(len(tokens) - n_first)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - n_first)
    base = {"model": "llama", "pre": "default", "tokens": tokens, "scores": scores, "token_type": kinds}
    base |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **changes}
    return {f"tokenizer.ggml.{key}": value for key, value in base.items() if value is not None}


def _merge_loop(metadata: dict[str, Any], text: str) -> list[int]:
    """SentencePiece's BPE as its paper tells it: join the best-scored neighbours, leftmost first; then bytes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    index = {token: position for position, token in enumerate(tokens)}
    score = dict(zip(tokens[259:], metadata["tokenizer.ggml.scores"][259:], strict=True))
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        pairs = [(score.get(a + b, -1e9), -i) for i, (a, b) in enumerate(pairwise(symbols))]
        if not pairs or max(pairs)[0] == -1e9:
            break
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids: list[int] = []
    for symbol in symbols:
        ids += [index[symbol]] if symbol in index else [index[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return _metadata()


@pytest.fixture(scope="module")
def spm(metadata: dict[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(metadata)


@pytest.fixture(scope="module")
def spm_texts() -> list[str]:
    rng = random.Random(5)
    glue = [" ", " ", " ", "  ", "", "\n", "\t", "z", "é", "你", "🙂", "e\u0301", "\x00", "aaa", "ha", "ss", "12"]
    return [
        "".join(rng.choice(CORPUS)[: rng.randint(1, 9)] + rng.choice(glue) for _ in range(rng.randint(1, 12)))
        for _ in range(800)
    ] + ["", " ", "   ", " the", "  the", "the ", "▁the", "a" * 40, "hahahahaha"]


def test_ids_are_those_of_the_plain_merge_loop(spm: Tokenizer, metadata: dict[str, Any], spm_texts: list[str]) -> None:
    for text in spm_texts:
        assert spm.encode(text, prepend_bos=False) == _merge_loop(metadata, text), repr(text)


def test_text_comes_back_from_its_ids(spm: Tokenizer, spm_texts: list[str]) -> None:
    for text in spm_texts:
        # the marker itself is how this vocabulary writes a space
        assert spm.decode(spm.encode(text), skip_special_tokens=True) == text.replace("▁", " "), repr(text)


def test_the_transformers_converter_agrees_where_it_puts_the_prefix_space(
    spm: Tokenizer, metadata: dict[str, Any], spm_texts: list[str]
) -> None:
    from transformers import TokenizersBackend
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    names = {"model": "tokenizer_type", "tokens": "tokens", "scores": "scores", "token_type": "token_type"}
    fields = {name: metadata[f"tokenizer.ggml.{key}"] for key, name in names.items()}
    theirs = TokenizersBackend(tokenizer_object=convert_gguf_tokenizer("llama", fields)[0])
    same = [text for text in spm_texts if text and text[0] not in " ▁"]
    assert len(same) >= 700
    for text in same:
        ids = theirs.encode(text, add_special_tokens=False)
        assert spm.encode(text, prepend_bos=False) == ids, repr(text)
        assert spm.decode(ids) == theirs.decode(ids)


def test_bos_is_on_unless_the_file_says_no(spm: Tokenizer) -> None:
    assert spm.encode("the")[0] == 1
    assert spm.encode("<s>the").count(1) == 1
    assert tokenizer_from_gguf(_metadata(add_bos_token=False)).encode("the")[0] != 1
    assert tokenizer_from_gguf(_metadata(add_eos_token=True)).encode("the")[-1] == 2


def test_the_prefix_space_is_put_unless_the_file_says_no(spm: Tokenizer) -> None:
    without = tokenizer_from_gguf(_metadata(add_space_prefix=False))
    assert without.encode(" the") == spm.encode("the")
    assert without.encode("the") != spm.encode("the")
    assert without.decode(without.encode(" the", prepend_bos=False)) == " the"
    assert spm.decode(spm.encode(" the", prepend_bos=False)) == " the"


def test_the_prefix_space_returns_after_a_special_token(spm: Tokenizer) -> None:
    assert spm.encode("the</s>the") == [1, *spm.encode("the", prepend_bos=False), 2, *spm.encode("the")[1:]]


def test_unknown_characters_become_bytes_or_the_unknown_token(spm: Tokenizer) -> None:
    space = spm.encode("", prepend_bos=False)
    assert space == []
    assert [spm.backend.id_to_token(token) for token in spm.encode("é~", prepend_bos=False)][-1] == "<0x7E>"
    full = _metadata()
    keep = [i for i, kind in enumerate(full["tokenizer.ggml.token_type"]) if kind != 6]
    lists = {name: [full[f"tokenizer.ggml.{name}"][i] for i in keep] for name in ("tokens", "scores", "token_type")}
    byteless = tokenizer_from_gguf(_metadata(**lists))
    assert byteless.encode("~~", prepend_bos=False)[-1] == 0


def test_an_unnamed_unknown_token_is_found_by_its_kind() -> None:
    tokenizer = tokenizer_from_gguf(_metadata(unknown_token_id=None))
    assert tokenizer.backend.model.unk_token == "<unk>"


def test_a_single_token_counts_its_prefix_space(spm: Tokenizer) -> None:
    assert spm.backend.id_to_token(spm.single_token("the")) == "▁the"
    assert spm.str_tokens([spm.single_token("the")]) == ["the"]  # decoded alone, as TransformerLens shows it


def test_ids_are_those_of_the_sentencepiece_library() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    rng = random.Random(7)
    lines = [" ".join(rng.choices(CORPUS, k=12)) for _ in range(400)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=420, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(oracle.vocab_size())
    kinds = [2 if oracle.IsUnknown(i) else 3 if oracle.IsControl(i) else 6 if oracle.IsByte(i) else 1 for i in ids]
    lists = {"tokens": [oracle.IdToPiece(i) for i in ids], "scores": [oracle.GetScore(i) for i in ids]}
    tokenizer = tokenizer_from_gguf(_metadata(**lists, token_type=kinds))
    glue = [" ", " ", "  ", "", "\n", "z", "é", "你", "🙂", "aaa", "ss"]
    texts = ["".join(rng.choice(CORPUS) + rng.choice(glue) for _ in range(rng.randint(1, 12))) for _ in range(1000)]
    for text in [*texts, "", " ", " the", "   the", "the  "]:
        assert tokenizer.encode(text, prepend_bos=False) == oracle.encode(text), repr(text)
        assert tokenizer.decode(oracle.encode(text)) == oracle.decode(oracle.encode(text))
