"""What a search has finished, kept in a folder so that the same call goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import InputError, StorageError
from interp.heads.syntax_corpus import conllu_files, is_labelled
from interp.model.identity import model_hash
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import HeadScores

__all__ = ["Kept"]

_SAMPLE = "Then Mary, who lives in Paris, gave 42 apples to John.\n"
METHOD = 8  # raised whenever the same call would give other numbers


@dataclass(frozen=True)
class Kept:
    """Finished parts of one search, each in a folder named for its kinds and for a hash of all that decides its
    numbers: the model's weights, the settings, the prompts given, and how many kinds are corrected for."""

    folder: Path | None
    key: str

    @classmethod
    def of(
        cls,
        folder: Any,
        model: HookedTransformer,
        settings: Mapping[str, Any],
        pairs: Mapping[str, PromptPairs] | None,
        corpus: Any,
        kinds: Sequence[str],
    ) -> Kept:
        """Nothing is kept without a folder. Raises `InputError` for one that is a file."""
        if folder is None:
            return cls(None, "")
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise InputError(f"keep={path} is a file. Give a folder; it is made if it is not there.")
        decides = {
            "method": METHOD,
            "model": model_hash(model),
            "settings": dict(settings),
            "n_kinds": len(kinds),
            "corpus": _words(corpus),
            "pairs": None if pairs is None else [(name, _of_pairs(one)) for name, one in pairs.items()],
            "tokenizer": None if model.tokenizer is None else model.tokenizer.encode(_SAMPLE, prepend_bos=False),
        }
        return cls(path, hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16])

    def get(self, group: Sequence[Any]) -> HeadScores | None:
        """A part that was finished before; a damaged one is measured again."""
        path = self._path(group)
        if path is None or not path.exists():
            return None
        try:
            return HeadScores.load(path)
        except StorageError:
            return None

    def put(self, group: Sequence[Any], part: HeadScores) -> None:
        """Keep a finished part, all or nothing."""
        if (path := self._path(group)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.save(path)

    def _path(self, group: Sequence[Any]) -> Path | None:
        if self.folder is None:
            return None
        names = "+".join(one.name for one in group)
        return self.folder / f"{hashlib.sha256(names.encode()).hexdigest()[:8]}-{self.key}"


def _of_pairs(pairs: PromptPairs) -> Any:
    fields = asdict(pairs)
    fields.pop("tokens_text")
    return fields


def _words(corpus: Any) -> Any:
    """A corpus by its content where it is small enough to be given as such, else by its names."""
    if isinstance(corpus, Tensor):
        return corpus.tolist()
    if corpus is None:
        return None
    if is_labelled(corpus):
        return [asdict(one) for one in corpus]
    if files := conllu_files(corpus):
        return [Path(file).read_bytes().hex() for file in files]
    from interp.tasks.natural_text import passages

    return passages(corpus)
