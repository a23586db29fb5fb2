"""What `Tokenizer` promises by itself: BOS once, single tokens, bad input, saving, threads, light imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from interp.errors import CheckpointError, InputError, StorageError
from interp.text import Tokenizer

IM_START = 1


def _small(*, template: bool = False, **options: object) -> Tokenizer:
    """Words a–d, `<s>` (4), `</s>` (5), `[UNK]` (6); with `template`, a post-processor adds `<s>` and `</s>`."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "d": 3, "<s>": 4, "</s>": 5, "[UNK]": 6}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<s>", "</s>"])
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 4), ("</s>", 5)]
        )
    defaults = {"add_bos": False, "bos_id": 4, "eos_id": 5, "pad_id": None, "unk_id": 6}
    return Tokenizer(backend, **{**defaults, **options})  # type: ignore[arg-type]


def test_plain_text_gets_bos_only_when_the_metadata_or_the_call_says_so(smollm: Tokenizer) -> None:
    bare = smollm.encode("Hello world")
    assert bare[0] != IM_START
    assert smollm.encode("Hello world", prepend_bos=False) == bare
    assert smollm.encode("Hello world", prepend_bos=True) == [IM_START, *bare]
    assert _small(add_bos=True).encode("a b") == [4, 0, 1]
    assert _small(add_bos=True).encode("a b", prepend_bos=False) == [0, 1]


def test_bos_is_never_put_twice(smollm: Tokenizer) -> None:
    text = "<|im_start|>user\nHi"
    assert smollm.encode(text, prepend_bos=True) == smollm.encode(text)
    assert smollm.encode_batch([text, "Hi"], prepend_bos=True) == [
        smollm.encode(text),
        smollm.encode("Hi", prepend_bos=True),
    ]
    for tokenizer in (_small(add_bos=True), _small(add_bos=True, template=True, add_eos=True)):
        assert tokenizer.encode("<s> a").count(4) == 1
        assert tokenizer.encode("a").count(4) == 1
        assert tokenizer.encode("<s> a", prepend_bos=True).count(4) == 1


def test_a_text_that_begins_with_bos_keeps_it_when_none_is_asked_for() -> None:
    assert _small(add_bos=True).encode("<s> a", prepend_bos=False) == [4, 0]


def test_the_flags_outrank_the_post_processor() -> None:
    assert _small(template=True).encode("a") == [0]
    assert _small(template=True, add_bos=True).encode("a") == [4, 0]
    assert _small(template=True, add_eos=True).encode("a") == [0, 5]
    assert _small(add_bos=True, add_eos=True).encode("a") == [4, 0, 5]


def test_the_empty_text_is_no_tokens_or_bos_alone(smollm: Tokenizer) -> None:
    assert smollm.encode("") == []
    assert smollm.encode("", prepend_bos=True) == [IM_START]
    assert smollm.decode([]) == ""
    assert smollm.str_tokens([]) == []


def test_a_batch_is_its_texts_one_by_one(smollm: Tokenizer, texts: list[str]) -> None:
    assert smollm.encode_batch(texts) == [smollm.encode(text) for text in texts]
    assert smollm.encode_batch([]) == []


def test_string_tokens_join_to_the_text_where_no_character_is_cut(smollm: Tokenizer) -> None:
    ids = smollm.encode("When Mary and John went to the store")
    assert smollm.str_tokens(ids)[:3] == ["When", " Mary", " and"]
    assert "".join(smollm.str_tokens(ids)) == smollm.decode(ids)


def test_arrays_of_ids_decode_like_lists(smollm: Tokenizer) -> None:
    import numpy as np
    import torch

    ids = smollm.encode("When Mary")
    for row in (np.array(ids), iter(ids), torch.tensor(ids), list(torch.tensor(ids)), list(np.array(ids)), tuple(ids)):
        assert smollm.decode(row) == "When Mary"


def test_a_single_token_is_its_id_without_bos(smollm: Tokenizer) -> None:
    assert smollm.encode(" Mary") == [smollm.single_token(" Mary")]
    assert smollm.single_token("<|im_end|>") == smollm.eos_id
    assert smollm.single_token("<|endoftext|>") == smollm.unk_id
    assert _small(add_bos=True).single_token("b") == 1


def test_a_text_of_several_tokens_is_refused_with_its_pieces(smollm: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"' 42' is 3 tokens here, not one: ' ', '4', '2'\. Choose"):
        smollm.single_token(" 42")
    with pytest.raises(InputError, match="is 0 tokens here, not one: none"):
        smollm.single_token("")


def test_an_unknown_word_is_not_a_single_token() -> None:
    with pytest.raises(InputError, match=r"'zebra' is not in this vocabulary: it becomes '\[UNK\]'"):
        _small().single_token("zebra")
    assert _small().single_token("a") == 0


@pytest.mark.usefixtures("unchecked")
def test_bad_text_is_refused(smollm: Tokenizer) -> None:
    with pytest.raises(InputError, match="Expected one text \\(str\\), got list"):
        smollm.encode(["a"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lone surrogate at 1"):
        smollm.encode("a\ud800")
    with pytest.raises(InputError, match="encode_batch takes a list of texts"):
        smollm.encode_batch("a")


@pytest.mark.parametrize("ids", [[49152], [-1], [3, 10**9], [2**70]])
def test_ids_out_of_range_are_refused(smollm: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(InputError, match="out of range: this vocabulary has 49152 tokens"):
        smollm.decode(ids)
    with pytest.raises(InputError, match="out of range"):
        smollm.str_tokens(ids)


@pytest.mark.parametrize("ids", ["12", 12, [1.0], [[1, 2]], [True], [None]])
@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_flat_row_of_integers_is_refused(smollm: Tokenizer, ids: object) -> None:
    with pytest.raises(InputError, match="flat list of integers"):
        smollm.decode(ids)  # type: ignore[arg-type]


def test_bos_cannot_be_asked_of_a_tokenizer_without_one() -> None:
    with pytest.raises(InputError, match="has no BOS token"):
        _small(bos_id=None).encode("a", prepend_bos=True)


def test_contradicting_metadata_is_refused() -> None:
    with pytest.raises(CheckpointError, match="names none"):
        _small(bos_id=None, add_bos=True)
    with pytest.raises(CheckpointError, match="pad_id is 99"):
        _small(pad_id=99)


def test_saving_and_loading_changes_nothing(smollm: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    smollm.save(tmp_path / "deep" / "folder")
    began = time.perf_counter()
    back = Tokenizer.load(tmp_path / "deep" / "folder")
    assert time.perf_counter() - began < 1  # 0.07 s on a quiet machine
    assert back.encode_batch(texts) == smollm.encode_batch(texts)
    for name in ("add_bos", "add_eos", "bos_id", "eos_id", "pad_id", "unk_id", "chat_template", "n_vocab"):
        assert getattr(back, name) == getattr(smollm, name)
    small = _small(add_bos=True, add_eos=True, template=True)
    small.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("a") == small.encode("a") == [4, 0, 5]


def test_saving_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    _small().save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "tokenizer.json", "tokenizer_meta.json"]


def test_a_folder_without_a_saved_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no saved tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_damaged_saved_tokenizer_is_refused(tmp_path: Path) -> None:
    _small().save(tmp_path)
    meta = tmp_path / "tokenizer_meta.json"
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps({"version": 1, "add_bos": False}))
    with pytest.raises(CheckpointError, match="lacks bos_id"):
        Tokenizer.load(tmp_path)
    meta.write_text(json.dumps({**content, "version": 7}))
    with pytest.raises(CheckpointError, match="not of version 1"):
        Tokenizer.load(tmp_path)
    meta.write_text("{")
    with pytest.raises(StorageError, match=r"tokenizer_meta\.json"):
        Tokenizer.load(tmp_path)
    meta.write_text(json.dumps(content))
    (tmp_path / "tokenizer.json").write_text('{"half":')
    with pytest.raises(CheckpointError, match="not a tokenizer file that can be read"):
        Tokenizer.load(tmp_path)


def test_threads_may_share_one_tokenizer(smollm: Tokenizer, texts: list[str]) -> None:
    sample = texts[:400]
    alone = [(smollm.encode(text), smollm.encode(text, prepend_bos=True)) for text in sample]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: (smollm.encode(text), smollm.encode(text, prepend_bos=True)), sample))
    assert together == alone


def test_the_room_imports_no_deep_learning_library() -> None:
    code = (
        "import sys, interp.text as t\n"
        "m = {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.tokens': ['a', 'b', 'ab'],"
        " 'tokenizer.ggml.merges': ['a b']}\n"
        "assert t.tokenizer_from_gguf(m).encode('ab') == [2]\n"
        "print(sorted({'torch', 'transformers', 'transformer_lens', 'gguf', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
