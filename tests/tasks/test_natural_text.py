"""Windows of natural text are full, disjoint and reproducible, and every unusable corpus is refused by name."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from jaxtyping import config as shape_checks
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.tasks.natural_text import NaturalText, natural_text, passages
from interp.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "interp" / "tasks" / "sample_text"
WORDS = [f"w{i}" for i in range(200)]


def tiny(bos_id: int | None = 0, *, tokenizer: bool = True) -> HookedTransformer:
    """A model whose tokens are the words w0 to w199 and, with a BOS, two special ones."""
    cfg = ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=202, n_ctx=64, d_mlp=8)
    if not tokenizer:
        return HookedTransformer(cfg)
    vocabulary = {word: i for i, word in enumerate(["<s>", "[UNK]", *WORDS])}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos_id is not None:
        backend.add_special_tokens(["<s>", "[UNK]"])
    return HookedTransformer(cfg, Tokenizer(backend, add_bos=False, bos_id=bos_id, eos_id=None, pad_id=None, unk_id=1))


def words(first: int, last: int) -> str:
    return " ".join(WORDS[first:last])


def same(a: NaturalText, b: NaturalText) -> bool:
    return torch.equal(a.batch.tokens, b.batch.tokens) and torch.equal(a.passage_index, b.passage_index)


def assert_disjoint(found: NaturalText, width: int) -> None:
    placed = sorted(zip(found.passage_index.tolist(), found.start.tolist(), strict=True))
    assert all(p != q or i + width <= j for (p, i), (q, j) in pairwise(placed))


# The sample


def test_the_sample_is_large_and_its_passages_are_of_one_size(smollm2):
    sizes = [len(row) for row in smollm2.tokenizer.encode_batch(passages(), prepend_bos=False)]
    assert len(sizes) >= 24 and sum(sizes) >= 7_500
    assert min(sizes) >= 250 and max(sizes) <= 500


def test_the_sample_is_read_in_the_order_of_the_names():
    files = sorted(SAMPLE.glob("*.txt"), key=lambda file: file.name)
    assert passages() == [file.read_text("utf-8") for file in files]


def test_the_sample_has_no_passage_twice_and_no_line_of_prose_in_two_passages():
    lines = [line for text in passages() for line in set(text.splitlines()) if len(line) > 60]
    assert len(lines) == len(set(lines)) > 200


@pytest.mark.parametrize("file", sorted(SAMPLE.glob("*")), ids=lambda file: file.stem)
def test_a_sample_file_is_plain_text_that_the_wheel_carries(file):
    data = file.read_bytes()
    text = data.decode("utf-8")
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}
    assert text == text.strip("\n") + "\n" and not any(line != line.rstrip() for line in text.split("\n"))
    assert "<|" not in text  # a special token of some checkpoint
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]["interp"]
    assert any(file in (ROOT / "interp").glob(glob) for glob in globs)


# Windows


@pytest.mark.parametrize("bos", [True, False])
def test_a_window_is_full_and_is_a_stretch_of_its_passage(smollm2, bos):
    found = natural_text(smollm2, 30, n_tokens=64, bos=bos, seed=3)
    assert found.batch.tokens.shape == (30, 64) and found.batch.mask is None and found.has_bos is bos
    rows = smollm2.tokenizer.encode_batch(passages(), prepend_bos=False)
    for tokens, passage, start in zip(found.batch.tokens, found.passage_index, found.start, strict=True):
        text = tokens[int(bos) :].tolist()
        assert text == rows[int(passage)][int(start) : int(start) + len(text)]
    assert (found.batch.tokens[:, 0] == smollm2.tokenizer.bos_id).all() == bos


@pytest.mark.parametrize("seed", range(4))
def test_windows_do_not_overlap_even_when_all_are_taken(smollm2, seed):
    rows = smollm2.tokenizer.encode_batch(passages(), prepend_bos=False)
    n = sum(len(row) // 99 for row in rows)
    found = natural_text(smollm2, n, n_tokens=100, seed=seed)
    assert_disjoint(found, 99)
    assert found.passage_index.bincount(minlength=len(rows)).tolist() == [len(row) // 99 for row in rows]


def test_as_few_windows_as_passages_come_from_different_passages(smollm2):
    n = len(passages())
    assert len(natural_text(smollm2, n, seed=1).passage_index.unique()) == n
    twice = natural_text(smollm2, 2 * n, n_tokens=100, seed=1)
    assert twice.passage_index.bincount().tolist() == [2] * n


def test_the_seed_alone_decides(smollm2):
    first = natural_text(smollm2, 20, seed=5)
    torch.manual_seed(99)
    assert same(first, natural_text(smollm2, 20, seed=5))
    assert not same(first, natural_text(smollm2, 20, seed=6))


def test_more_windows_begin_with_those_of_fewer(smollm2):
    few, many = natural_text(smollm2, 9, seed=2), natural_text(smollm2, 60, seed=2)
    assert torch.equal(few.batch.tokens, many.batch.tokens[:9])


def test_every_token_of_a_passage_can_be_drawn(tmp_path):
    (tmp_path / "a.txt").write_text(words(0, 25))
    model = tiny()
    starts = {int(natural_text(model, 1, n_tokens=11, corpus=tmp_path, seed=s).start[0]) for s in range(300)}
    assert starts == {*range(6), *range(10, 16)}  # where the first and the second of two windows of 10 can begin


def test_a_tokenizer_without_bos_gives_windows_of_text_only(tmp_path):
    (tmp_path / "a.txt").write_text(words(0, 40))
    found = natural_text(tiny(bos_id=None), 4, n_tokens=10, corpus=tmp_path)
    assert not found.has_bos and sorted(found.batch.tokens.flatten().tolist()) == list(range(2, 42))


def test_special_tokens_in_the_text_are_borders(tmp_path):
    (tmp_path / "a.txt").write_text(f"{words(0, 13)} <s> {words(20, 33)} nonsense {words(40, 45)}")
    found = natural_text(tiny(), 4, n_tokens=7, corpus=tmp_path)
    assert not torch.isin(found.batch.tokens[:, 1:], torch.tensor([0, 1])).any()
    assert (found.batch.tokens[:, 1:].diff() == 1).all()  # words that follow each other, across no border
    with pytest.raises(InputError, match="holds 4 without overlap"):
        natural_text(tiny(), 5, n_tokens=7, corpus=tmp_path)


def test_the_model_reads_the_windows_as_they_are(smollm2):
    found = natural_text(smollm2, 2, n_tokens=16)
    with torch.no_grad():
        assert smollm2(found.batch.tokens).shape[:2] == (2, 16)


# Windows that cannot be had


def test_too_little_text_says_how_many_windows_there_are(smollm2):
    with pytest.raises(
        InputError, match=r"Asked for 5000 windows of 128 tokens; the text \(\d+ passages, \d+ tokens\)"
    ):
        natural_text(smollm2, 5000)


def test_text_shorter_than_a_window_holds_none(tmp_path):
    (tmp_path / "a.txt").write_text(words(0, 5))
    with pytest.raises(InputError, match=r"1 passages, 5 tokens\) holds 0 without"):
        natural_text(tiny(), 1, n_tokens=32, corpus=tmp_path)


def test_a_model_without_a_tokenizer_is_told_what_to_do():
    with pytest.raises(InputError, match=r"no tokenizer.*Load it with tokenizer="):
        natural_text(tiny(tokenizer=False), 1)


@pytest.mark.parametrize(("n", "n_tokens", "bos"), [(0, 32, True), (-1, 32, True), (4, 2, True), (4, 1, False)])
def test_no_windows_or_windows_of_nothing_are_refused(n, n_tokens, bos):
    with pytest.raises(InputError, match=f"Cannot cut {n} windows of {n_tokens} tokens.*at least {2 + bos}"):
        natural_text(tiny(), n, n_tokens=n_tokens, bos=bos)


def test_windows_longer_than_the_context_are_refused():
    with pytest.raises(InputError, match=r"n_tokens=65 is more than this model reads.*at most 64"):
        natural_text(tiny(), 1, n_tokens=65)


# The user's files


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    files = {"b.txt": "two", "a.md": "one", "deep/c.TXT": "three", "d.csv": "no", ".e.txt": "no", ".hidden/f.txt": "no"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "folder.txt").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_gives_its_text_files_by_name(folder, kind):
    assert passages(kind(folder)) == ["one", "two", "three"]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_one_passage_whatever_its_suffix(folder, kind):
    assert passages(kind(folder / "d.csv")) == ["no"]


def test_several_paths_keep_their_order_and_a_file_reached_twice_counts_once(folder):
    assert passages([folder / "b.txt", str(folder)]) == ["two", "one", "three"]
    assert passages((folder / "b.txt", folder / "deep" / ".." / "b.txt")) == ["two"]


def test_a_relative_path_is_read_from_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert passages(".") == ["one", "two", "three"]
    assert passages("deep/c.TXT") == ["three"]


def test_a_byte_order_mark_and_windows_newlines_do_not_reach_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert passages(tmp_path / "a.txt") == ["one\ntwo\n"]


@pytest.mark.parametrize("path", ["", "no/such/file.txt", "Once upon a time " * 400, "nul\0byte"])
def test_a_path_that_is_not_there_is_named(path):
    with pytest.raises(InputError, match="There is no file or folder") as caught:
        passages(path)
    assert repr(path[:200]) in str(caught.value) and len(str(caught.value)) < 400


def test_one_missing_path_among_several_is_not_passed_over(folder):
    with pytest.raises(InputError, match=r"There is no file or folder .*missing\.txt"):
        passages([folder, folder / "missing.txt"])


def test_an_empty_file_is_refused_when_it_is_asked_for(folder):
    with pytest.raises(InputError, match=r"empty\.txt holds no text"):
        passages(folder / "empty.txt")


def test_a_folder_without_text_is_refused(folder):
    with pytest.raises(InputError, match=r"folder\.txt holds no \.txt or \.md file with text"):
        passages(folder / "folder.txt")


def test_no_paths_at_all_are_refused():
    with pytest.raises(InputError, match="empty list"):
        passages([])


@pytest.mark.parametrize("how", ["file", "folder"])
def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path, how):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8 text \(byte 3\)"):
        passages(tmp_path / "latin.txt" if how == "file" else tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(5, "Input/output error")

    (tmp_path / "a.txt").write_text("one")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"Cannot read .*a\.txt: Input/output error"):
        passages(tmp_path)


@pytest.mark.parametrize("corpus", [5, [5], [None], b"bytes"])
def test_what_is_no_path_is_refused(corpus):
    shape_checks.update("jaxtyping_disable", True)  # in use nothing checks the signature
    try:
        with pytest.raises(InputError, match="corpus= takes paths of files and folders"):
            passages(corpus)
    finally:
        shape_checks.update("jaxtyping_disable", False)
