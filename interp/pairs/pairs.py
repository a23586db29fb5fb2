"""`PromptPairs`: clean and corrupt prompts that align, from text, token ids or a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.errors import InputError
from interp.model.tokens import TextMethods
from interp.pairs.answers import answer_sets
from interp.pairs.checks import PairError, check_model, check_pairs, check_sizes, id_rows, is_index, labels, plain
from interp.pairs.inputs import decoder_ids, decoder_rows, decoder_texts, need_tokenizer, reads_of, text_rows, texts
from interp.pairs.places import named_positions
from interp.pairs.show import token_table
from interp.pairs.table import read_pair_table

__all__ = ["PromptPairs"]

Rows = tuple[tuple[int, ...], ...]
Answers = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class PromptPairs:
    """Clean and corrupt prompts that align token by token, with what they are asked.

    Made by `from_text`, `from_tokens` or `from_csv`. Rows are token ids without padding and may differ in length
    from pair to pair, never within one. `answer` and `foil` hold per pair a set of alternatives of one token each, or
    a single one of several tokens; an alternative given twice counts once. Without `answer` pairs are judged by metrics
    that need none ("kl", functions, residuals). `read` is the position whose logits answer; with `clean_decoder` (what
    the decoder of an encoder-decoder has read) it counts in that, and in `clean` otherwise. `positions` always count
    in `clean`; "read" names the read. `combine` says how the logits of several alternatives become one. Left out,
    `read` is the last position (`reads_last` then says so: an encoder has to be told), every pair an item of its own,
    and `corrupt_decoder` is `clean_decoder`.
    """

    clean: Rows
    corrupt: Rows
    answer: Answers = ()
    foil: Answers = ()
    read: tuple[int, ...] = ()
    positions: Mapping[str, Rows] = field(default_factory=dict, hash=False)
    items: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    combine: str = "mean"
    clean_decoder: Rows = ()
    corrupt_decoder: Rows = ()
    tokens_text: Mapping[int, str] = field(default_factory=dict, compare=False, repr=False)
    reads_last: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        fill = {
            "corrupt_decoder": self.corrupt_decoder or self.clean_decoder,
            "answer": tuple(tuple(dict.fromkeys(one)) for one in self.answer),
            "foil": tuple(tuple(dict.fromkeys(one)) for one in self.foil),
            "read": self.read or tuple(len(row) - 1 for row in self.clean_decoder or self.clean),
            "reads_last": self.reads_last or not self.read,
            "items": self.items or tuple(str(i) for i in range(len(self.clean))),
            "positions": {n: tuple(tuple(sorted(set(s))) for s in spans) for n, spans in self.positions.items()},
        }
        for name, value in fill.items():
            object.__setattr__(self, name, value)
        check_pairs(self)

    @classmethod
    def from_text(
        cls,
        model: Any,
        clean: Any,
        corrupt: Any,
        answer: Any = None,
        foil: Any = None,
        *,
        positions: Any = None,
        items: Any = None,
        templates: Any = None,
        prepend_bos: bool | None = None,
        combine: str = "mean",
        read: Any = None,
        decoder: Any = None,
        corrupt_decoder: Any = None,
    ) -> PromptPairs:
        """Pairs from texts, tokenized as the model reads them. One string is one pair.

        `answer` and `foil`: per pair (or one for all) a text, a token id, a list of these (a set of alternatives), or
        a tuple of ids (several tokens in order). A text with leading white space is taken as it is. Another one gets a
        space in front if the text before it does not end in white space and the tokens do not become more: "Paris"
        behind "The capital of France is" is `' Paris'`, but "4" behind "2 + 2 =" stays `'4'` where `' 4'` would be two
        tokens. `show` prints what was taken; to have none, give the id. Several tokens stay several: they are scored
        by log-probability.

        `positions`: name -> for all pairs or as a list with one per pair, in the clean text: a substring that stands
        there once, characters `(start, end)`, a token index (negative counts from the end), or a list of indices. A
        list with as many entries as there are pairs is one per pair. `read`: None for the last position, an index, one
        per pair, or "mask"; an encoder's answers need one. `decoder`: for models with an encoder and a decoder, what
        the decoder has read, as text (taken as written: no BOS or EOS is added) or ids. Raises `InputError` for a pair
        whose prompts differ in length, with both shown.
        """
        tokenizer = need_tokenizer(check_model(model))
        given = {"clean": texts(clean, "clean"), "corrupt": texts(corrupt, "corrupt")}
        n = len(given["clean"])
        if n != len(given["corrupt"]):
            raise InputError(f"There are {n} clean prompts and {len(given['corrupt'])} corrupt ones. Pair them.")
        rows = {side: text_rows(tokenizer, side, given[side], prepend_bos) for side in given}
        decoders = decoder_rows(model, decoder, corrupt_decoder, n)
        mask_id = getattr(tokenizer, "mask_id", None)
        answered = answer is not None
        reads = reads_of(model, read, decoders[0] or [row.ids for row in rows["clean"]], mask_id, answered=answered)
        fills = model.cfg.decoder is None
        before = decoder_texts(tokenizer, decoders[0], reads) if decoders[0] else []
        before = before or [row.before(at, fills=fills) for row, at in zip(rows["clean"], reads, strict=True)]
        parts = {
            "answer": answer_sets(answer, n, "answer", tokenizer=tokenizer, before=before) if answered else (),
            "foil": answer_sets(foil, n, "foil", tokenizer=tokenizer, before=before) if foil is not None else (),
        }
        lengths = [len(row.ids) for row in rows["clean"]]
        clean_ids, corrupt_ids = (tuple(row.ids for row in rows[side]) for side in rows)
        return _built(
            model,
            clean=clean_ids,
            corrupt=corrupt_ids,
            **parts,
            read=() if read is None else reads,
            positions=named_positions(positions, lengths, rows["clean"]),
            items=labels(items, n, "items"),
            templates=labels(templates, n, "templates"),
            combine=combine,
            clean_decoder=decoders[0],
            corrupt_decoder=decoders[1],
        )

    @classmethod
    def from_tokens(
        cls,
        clean: Any,
        corrupt: Any,
        answer: Any = None,
        foil: Any = None,
        *,
        read: Any = None,
        positions: Any = None,
        items: Any = None,
        templates: Any = None,
        combine: str = "mean",
        decoder: Any = None,
        corrupt_decoder: Any = None,
        model: Any = None,
        clean_decoder: Any = None,
    ) -> PromptPairs:
        """Pairs from token ids, as lists (rows may differ in length) or tensors; one flat row is one pair.

        `answer`, `foil`, `positions`, `read` and `decoder` (`clean_decoder` is another name for it) as in `from_text`,
        but ids and token indices only. With `model` ids and lengths are checked against it, and tokens are shown as
        text.
        """
        if decoder is not None and clean_decoder is not None:
            raise InputError("decoder= and clean_decoder= are two names for one thing. Give decoder= alone.")
        decoder = clean_decoder if decoder is None else decoder
        rows, corrupt_rows = id_rows(clean, "clean"), id_rows(corrupt, "corrupt")
        n = len(rows)
        if n != len(corrupt_rows):
            raise InputError(f"There are {n} clean prompts and {len(corrupt_rows)} corrupt ones. Pair them.")
        if model is not None:
            check_model(model)
            decoders = decoder_rows(model, decoder, corrupt_decoder, n)
        else:
            decoders = decoder_ids(decoder, corrupt_decoder, n)
        mask_id = getattr(getattr(model, "tokenizer", None), "mask_id", None)
        reads = reads_of(model, read, decoders[0] or rows, mask_id, answered=answer is not None)
        return _built(
            model,
            clean=rows,
            corrupt=corrupt_rows,
            answer=answer_sets(answer, n, "answer") if answer is not None else (),
            foil=answer_sets(foil, n, "foil") if foil is not None else (),
            read=() if read is None else reads,
            positions=named_positions(positions, [len(row) for row in rows]),
            items=labels(items, n, "items"),
            templates=labels(templates, n, "templates"),
            combine=combine,
            clean_decoder=decoders[0],
            corrupt_decoder=decoders[1],
        )

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], model: Any = None, **options: Any) -> PromptPairs:
        """Pairs from a UTF-8 CSV file with a header: columns clean, corrupt, answer, and if wanted foil, item,
        template, read (an index or mask) and one `pos:NAME` for each named position (a substring, or an index where
        the cell is a whole number). Other columns are not read. `options` are those of `from_text`; errors name the
        row, counted from 1 below the header. Without a model the cells are token ids ("504 3575 282"), as for
        `from_tokens`."""
        table = read_pair_table(path)
        for name in options.keys() & table.arguments.keys():
            if table.arguments[name]:
                raise InputError(f"{name}= was given, and {path} has columns for it too. Leave one out.")
        try:
            if model is None:
                return cls.from_tokens(**{**table.as_ids(), **options})
            return cls.from_text(model, **{**table.arguments, **options})
        except PairError as error:
            raise InputError(f"{table.row(error.pair)}: {error.what}") from error

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: Any) -> PromptPairs:
        """One pair, a slice or a list of them, as pairs."""
        return self.select(range(len(self))[index] if isinstance(index, slice) else index)

    def __iter__(self) -> Iterator[PromptPairs]:
        return (self.select(pair) for pair in range(len(self)))

    def select(self, indices: Any) -> PromptPairs:
        """Some of the pairs, in the order asked; an index may come twice, and a negative one counts from the end."""
        values = list(indices) if isinstance(indices, range) else plain(indices)
        chosen: Any = [values] if is_index(values) else values
        if not isinstance(chosen, (list, tuple)) or not chosen or not all(is_index(one) for one in chosen):
            raise InputError(f"pairs are selected by whole numbers, got {indices!r}. Give an index or a list of them.")
        pairs = [self._pair(one) for one in chosen]
        per_pair = ("clean", "corrupt", "answer", "foil", "read", "items", "templates")
        parts = {
            name: tuple(value[i] for i in pairs) if (value := getattr(self, name)) else ()
            for name in (*per_pair, "clean_decoder", "corrupt_decoder")
        }
        positions = {name: tuple(spans[i] for i in pairs) for name, spans in self.positions.items()}
        return PromptPairs(
            **parts,
            positions=positions,
            combine=self.combine,
            tokens_text=self.tokens_text,
            reads_last=self.reads_last,
        )

    def swapped(self) -> PromptPairs:
        """Clean and corrupt exchanged; answers, foils and positions stay."""
        sides = {"clean": self.corrupt, "corrupt": self.clean}
        sides |= {"clean_decoder": self.corrupt_decoder, "corrupt_decoder": self.clean_decoder}
        return PromptPairs(**{**{name: getattr(self, name) for name in self.__dataclass_fields__}, **sides})

    @property
    def first_difference(self) -> tuple[int, ...]:
        """Per pair the first position at which clean and corrupt differ; the length of the row where nowhere."""
        return tuple(
            next((i for i, (a, b) in enumerate(zip(*rows, strict=True)) if a != b), len(rows[0]))
            for rows in zip(self.clean, self.corrupt, strict=True)
        )

    @property
    def predicted_lengths(self) -> tuple[int, ...]:
        """Tokens of the text that `read` counts in: the decoder's where there are two, else the prompt."""
        return tuple(len(row) for row in self.clean_decoder or self.clean)

    def span(self, name: str, pair: int) -> tuple[int, ...]:
        """Token positions of a name in one pair; `"subject:first"` and `"subject:last"` are one end of it. "read", if
        not named otherwise, is the position that answers (in the decoder's text where there is one)."""
        base, _, end = name.partition(":")
        if name == "read" and name not in self.positions:
            return (self.read[self._pair(pair)],)
        if base not in self.positions:
            known = ", ".join(self.positions) or "none; name some with positions="
            raise InputError(f"There is no position named {base!r}. These pairs have {known}.")
        if end not in ("", "first", "last") or name.endswith(":"):
            raise InputError(f'{name!r} asks for part {end!r} of a position. Choose "{base}:first" or "{base}:last".')
        found = self.positions[base][self._pair(pair)]
        return found if not end else found[:1] if end == "first" else found[-1:]

    def spell(self, tokens: Sequence[int]) -> str:
        """Tokens as a person reads them, quoted so that spaces show; as numbers where no text is known."""
        if not all(token in self.tokens_text for token in tokens):
            return " ".join(str(token) for token in tokens)
        return "+".join(repr(self.tokens_text[token]) for token in tokens)

    def show(self, pair: int = 0) -> str:
        """One pair as a table to print: positions, clean over corrupt, `^` where they differ, `*` at named positions
        and at the one that is read, and the answers as they were taken."""
        return token_table(self, self._pair(pair))

    def aligned(self, pair: int) -> list[tuple[str, str]]:
        """Clean and corrupt text of each token of one pair."""
        pair = self._pair(pair)
        both = zip(self.clean[pair], self.corrupt[pair], strict=True)
        return [(self.tokens_text.get(a, str(a)), self.tokens_text.get(b, str(b))) for a, b in both]

    def _pair(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise InputError(f"There is no pair {index}: these are {len(self)} pairs, 0 to {len(self) - 1}.")
        return index % len(self)


def _built(model: TextMethods | None, **parts: Any) -> PromptPairs:
    """Pairs with their tokens' text, checked against the model where there is one."""
    tokenizer = getattr(model, "tokenizer", None)
    rows = [*parts["clean"], *parts["corrupt"], *parts["clean_decoder"], *parts["corrupt_decoder"]]
    rows += [one for sets in (parts["answer"], parts["foil"]) for alternatives in sets for one in alternatives]
    used = sorted({token for row in rows for token in row if token >= 0})
    if tokenizer is not None:
        used = [token for token in used if token < 1 << 32 and tokenizer.backend.id_to_token(token) is not None]
        parts["tokens_text"] = dict(zip(used, tokenizer.str_tokens(used), strict=True))
    pairs = PromptPairs(**parts)
    if model is not None:
        check_sizes(pairs, model)
    return pairs
