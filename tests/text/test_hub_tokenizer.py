"""Folders in hub layout, and live tokenizers, against the transformers library reading the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from interp.errors import CheckpointError, InputError
from interp.text import tokenizer_from_folder, tokenizer_from_live


@pytest.fixture(scope="module")
def saved(hf_smollm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    hf_smollm.save_pretrained(folder)
    return folder


def _folder(
    path: Path, *, bos: bool = True, config: dict[str, Any] | None = None, model: dict[str, Any] | None = None
) -> Path:
    """`<s>` = 0, `</s>` = 1, words a and b; with `bos`, the post-processor puts `<s>` in front."""
    backend = Backend(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "[UNK]": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>", "</s>"])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path.mkdir(parents=True, exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    if model is not None:
        (path / "config.json").write_text(json.dumps(model))
    return path


NAMED = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}


def test_a_saved_tokenizer_gives_the_same_ids_and_chats(saved: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(saved), tokenizer_from_folder(saved)
    for text in texts:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids)
    assert (saved / "chat_template.jinja").is_file()
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.render_chat(chat) == theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert ours.n_vocab == len(theirs)
    for role in ("bos", "eos", "pad", "unk"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id")


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("said", [True, False, None])
def test_bos_is_what_the_config_says_and_else_what_the_post_processor_does(
    tmp_path: Path, bos: bool, said: bool | None
) -> None:
    from transformers import AutoTokenizer

    # transformers 5 drops add_bos_token where there is a tokenizer.json (transformers 4 read it): peer only if in step
    config = NAMED if said is None else {**NAMED, "add_bos_token": said}
    ours = tokenizer_from_folder(_folder(tmp_path, bos=bos, config=config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert ours.add_bos is (bos if said is None else said)
    assert ours.encode("a b") == ([0, 2, 3] if ours.add_bos else [2, 3])
    if said in (None, bos):
        assert ours.encode("a b") == theirs.encode("a b")
    assert ours.encode("a b", prepend_bos=True) == [0, 2, 3]
    assert ours.encode("a b", prepend_bos=False) == theirs.encode("a b", add_special_tokens=False) == [2, 3]


def test_eos_is_added_where_the_config_says_so(tmp_path: Path) -> None:
    config = {**NAMED, "add_eos_token": True}
    assert tokenizer_from_folder(_folder(tmp_path, config=config)).encode("a") == [0, 2, 1]


def test_bos_is_put_once_where_the_transformers_library_puts_it_twice(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = tokenizer_from_folder(_folder(tmp_path, config=NAMED))
    assert AutoTokenizer.from_pretrained(tmp_path).encode("<s> a") == [0, 0, 2]
    assert ours.encode("<s> a") == ours.encode("<s> a", prepend_bos=True) == [0, 2]


def test_special_tokens_come_from_the_config_the_map_or_the_model(tmp_path: Path) -> None:
    by_dict = {**NAMED, "bos_token": {"content": "<s>", "lstrip": False}}
    assert tokenizer_from_folder(_folder(tmp_path / "dict", config=by_dict)).bos_id == 0
    by_map = _folder(tmp_path / "map", config={"tokenizer_class": "PreTrainedTokenizerFast"})
    (by_map / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    assert tokenizer_from_folder(by_map).eos_id == 1
    by_model = tokenizer_from_folder(_folder(tmp_path / "model", model={"bos_token_id": 0, "eos_token_id": [1, 3]}))
    assert (by_model.bos_id, by_model.eos_id, by_model.pad_id) == (0, 1, None)
    denied = {**NAMED, "bos_token": None}
    assert tokenizer_from_folder(_folder(tmp_path / "no", config=denied, model={"bos_token_id": 0})).bos_id is None


def test_tokens_that_only_the_config_declares_are_added_alike(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = {**NAMED, "pad_token": "[PAD]", "additional_special_tokens": ["<x>"]}
    config["added_tokens_decoder"] = {"5": {"content": "<y>", "special": False, "normalized": False}}
    ours = tokenizer_from_folder(_folder(tmp_path, config=config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert ours.n_vocab == len(theirs) == 8
    for name in ("[PAD]", "<x>", "<y>", "[UNK]"):
        assert ours.backend.token_to_id(name) == theirs.convert_tokens_to_ids(name), name
    assert ours.pad_id == theirs.pad_token_id
    assert ours.encode("a<x>b<y>") == theirs.encode("a<x>b<y>")
    assert ours.decode([2, 5, 0], skip_special_tokens=True) == theirs.decode([2, 5, 0], skip_special_tokens=True)


def test_the_frame_of_an_encoder_stays(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "!"]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(words[:5])
    backend.enable_truncation(4)
    backend.enable_padding(length=12)
    backend.save(str(tmp_path / "tokenizer.json"))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", **names}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = tokenizer_from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "The cats sat! the [MASK] dog sat"
    ids = theirs.encode(text, truncation=False, padding=False)
    assert ours.encode(text) == ours.encode(text, prepend_bos=False) == ids
    assert ids[0] == 2 and ids[-1] == 3
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.bos_id is None and ours.pad_id == 0
    assert ours.single_token("cat") == 6


@pytest.mark.parametrize(
    "templates", ["{{ messages[0].content }}!", [{"name": "default", "template": "{{ messages[0].content }}!"}]]
)
def test_chat_templates_in_the_config_are_read(tmp_path: Path, templates: Any) -> None:
    ours = tokenizer_from_folder(_folder(tmp_path, config={**NAMED, "chat_template": templates}))
    assert ours.render_chat([{"role": "user", "content": "Hi"}]) == "Hi!"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}?")
    assert tokenizer_from_folder(tmp_path).render_chat([{"role": "user", "content": "Hi"}]) == "Hi?"


def test_a_folder_without_tokenizer_json_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json\. Write one with transformers: AutoTokenizer"):
        tokenizer_from_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        tokenizer_from_folder(tmp_path / "absent")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, content: str) -> None:
    folder = _folder(tmp_path, config=NAMED)
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=name):
        tokenizer_from_folder(folder)


def test_a_live_tokenizer_is_copied_and_left_as_it_was(hf_smollm: Any, texts: list[str]) -> None:
    hf_smollm.backend_tokenizer.enable_truncation(5)
    before = hf_smollm.backend_tokenizer.to_str()
    try:
        ours = tokenizer_from_live(hf_smollm)
        ours.encode_batch(texts, prepend_bos=True)
        assert hf_smollm.backend_tokenizer.to_str() == before
    finally:
        hf_smollm.backend_tokenizer.no_truncation()
    for text in texts[::5]:
        assert ours.encode(text) == hf_smollm.encode(text)
    assert ours.chat_template == hf_smollm.chat_template
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 2)


@pytest.mark.parametrize("said", [True, False, None])
def test_a_live_tokenizer_keeps_its_bos(tmp_path: Path, said: bool | None) -> None:
    from transformers import AutoTokenizer

    config = NAMED if said is None else {**NAMED, "add_bos_token": said}
    live = AutoTokenizer.from_pretrained(_folder(tmp_path, config=config))
    assert tokenizer_from_live(live).encode("a b") == live.encode("a b")


def test_an_object_without_a_backend_is_refused() -> None:
    with pytest.raises(InputError, match="object has no backend_tokenizer"):
        tokenizer_from_live(object())
