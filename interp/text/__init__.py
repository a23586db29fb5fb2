"""Text <-> tokens: a checkpoint's tokenizer, its chat template, and where tokenizers come from."""

from interp.text.gguf_vocab import tokenizer_from_gguf
from interp.text.hub import tokenizer_from_folder, tokenizer_from_live
from interp.text.tokenizer import Tokenizer

__all__ = ["Tokenizer", "tokenizer_from_folder", "tokenizer_from_gguf", "tokenizer_from_live"]
