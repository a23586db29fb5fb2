"""Sentences drawn together with their trees, in the style of Universal Dependencies: right by construction.

Clauses of some thirty frames are filled with noun phrases that are long or short at random: determiners, numerals, up
to three adjectives, nouns as modifiers, possessors, phrases and relative clauses. So the distance from a word to its
partner varies, and no fixed offset finds it often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from interp.heads.syntax_lexicon import WORDS
from interp.readers.conllu import ParsedSentence, Word

__all__ = ["Node", "drawn_sentences", "sentence_of"]

_CLOSED = ("preposition", "conjunction", "modal", "numeral", "possessive", "degree", "giving", "saying", "wanting")
_CLOSED += ("standing",)
_TIGHT = (",", ".", "?", "'s")  # no blank before them


@dataclass
class Node:
    """A word with what depends on it, left and right, in the order of the text."""

    form: str
    upos: str
    left: list[tuple[str, Node]] = field(default_factory=list)
    right: list[tuple[str, Node]] = field(default_factory=list)

    def before(self, *some: tuple[str, Node] | None) -> Node:
        """The same node with further dependents right before the word."""
        self.left += [one for one in some if one is not None]
        return self

    def after(self, *some: tuple[str, Node] | None) -> Node:
        self.right += [one for one in some if one is not None]
        return self

    def first(self, *some: tuple[str, Node]) -> Node:
        """The same with dependents in front of all others."""
        self.left = [*some, *self.left]
        return self

    def in_order(self, relation: str = "root", head: Node | None = None) -> list[tuple[Node, str, Node | None]]:
        rows = [row for name, node in self.left for row in node.in_order(name, self)]
        rows.append((self, relation, head))
        return rows + [row for name, node in self.right for row in node.in_order(name, self)]


def sentence_of(root: Node, name: str = "") -> ParsedSentence:
    """A tree as a parsed sentence, its first letter a capital."""
    rows = root.in_order()
    place = {id(node): number for number, (node, _, _) in enumerate(rows, start=1)}
    words, text = [], ""
    for number, (node, relation, head) in enumerate(rows, start=1):
        form = node.form[:1].upper() + node.form[1:] if number == 1 else node.form
        text += form if not text or form in _TIGHT else f" {form}"
        at = 0 if head is None else place[id(head)]
        words.append(Word(str(number), form, None, node.upos, None, None, at, relation, None, None, number))
    return ParsedSentence(tuple(words), comments={"sent_id": name, "text": text}, path=name)


def drawn_sentences(n: int, split: str, seed: int) -> list[ParsedSentence]:
    """`n` different sentences of a split ("select" or "report"): the frames in turn, other words in each split. More
    of the same seed begin with those of fewer."""
    draw, found = _Draw(split, np.random.default_rng([seed, *b"syntax", *split.encode()])), {}
    while len(found) < n:
        frame = FRAMES[len(found) % len(FRAMES)]
        one = sentence_of(getattr(draw, frame)(), f"{split} {len(found)}, {frame.replace('_', ' ')}")
        found.setdefault(one.text, one)
    return list(found.values())


class _Phrases:
    """Words and phrases of one split, drawn at random."""

    def __init__(self, split: str, generator: np.random.Generator) -> None:
        self.half, self.generator = int(split == "report"), generator

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        return {name: some if name in _CLOSED else some[self.half :: 2] for name, some in WORDS.items()}

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def any(self, some: Sequence[str]) -> str:
        return some[int(self.generator.integers(len(some)))]

    def word(self, name: str, form: int = 0) -> str:
        return self.any(self.words[name]).split()[form]

    def noun(self, kind: str, *, plural: bool | None = None, depth: int = 1, long: bool = True) -> Node:
        """A noun phrase of a person, thing or place; with `depth` it may hold a phrase or a relative clause."""
        if kind == "person" and plural is None and self.chance(0.15):
            return Node(self.word("name"), "PROPN")
        plural = self.chance(0.35) if plural is None else plural
        head = Node(self.word(kind) + ("s" if plural else ""), "NOUN")
        if head.form.endswith("rys"):
            head.form = head.form[:-2] + "ies"
        head.left = self._modifiers(kind, plural)
        if depth and long and self.chance(0.3):
            head.after(("nmod", self.phrase(depth=0)))
        elif depth and long and self.chance(0.2):
            head.after(("acl:relcl", self._relative_clause(kind)))
        return self._determined(head, plural, depth)

    def _modifiers(self, kind: str, plural: bool) -> list[tuple[str, Node]]:
        some: list[tuple[str, Node]] = []
        if plural and self.chance(0.35):
            some.append(("nummod", Node(self.word("numeral"), "NUM")))
        n, drawn = int(self.generator.choice(4, p=(0.4, 0.3, 0.2, 0.1))), set()
        while len(drawn) < n:
            drawn.add(self.word(f"{kind}_adjective"))
        for one in sorted(drawn, key=lambda _: self.generator.random()):
            degree = [("advmod", Node(self.word("degree"), "ADV"))] if self.chance(0.15) else []
            some.append(("amod", Node(one, "ADJ", list(degree))))
        if kind == "thing" and self.chance(0.25):
            some.append(("compound", Node(self.word("kind_of_thing"), "NOUN")))
        return some

    def _determined(self, head: Node, plural: bool, depth: int) -> Node:
        if depth and self.chance(0.15):
            owner = self.noun("person", plural=False, depth=0).after(("case", Node("'s", "PART")))
            return head.first(("nmod:poss", owner))
        if self.chance(0.12):
            return head.first(("nmod:poss", Node(self.word("possessive"), "PRON")))
        following = head.in_order()[0][0].form
        some = ["the", "the", "the", *(("some", "these", "those") if plural else ("a", "this", "every"))]
        if plural and head.left and head.left[0][0] == "nummod":
            some = ["the", "these", "those", ""]
        form = self.any(some)
        form = "an" if form == "a" and following[0] in "aeiou" else form
        return head.first(("det", Node(form, "DET"))) if form else head

    def phrase(self, depth: int = 1, preposition: str = "") -> Node:
        """A noun behind a preposition."""
        form = preposition or self.word("preposition")
        return self.noun("place" if form not in ("by", "to") else "person", depth=depth).first(
            ("case", Node(form, "ADP"))
        )

    def _relative_clause(self, kind: str) -> Node:
        if kind == "person" and self.chance(0.5):
            return self.transitive().before().first(("nsubj", Node("who", "PRON")))
        verb = Node(self.word("toward_person" if kind == "person" else "transitive"), "VERB")
        verb.before(("obj", Node("that", "PRON")), ("nsubj", self.noun("person", depth=0)))
        return verb.after(("advmod", Node(self.word("adverb"), "ADV")) if self.chance(0.3) else None)

    def transitive(self, depth: int = 0, form: int = 0) -> Node:
        """A verb with its object, without a subject."""
        if self.chance(0.35):
            return Node(self.word("toward_person", form), "VERB").after(("obj", self.noun("person", depth=depth)))
        return Node(self.word("transitive", form), "VERB").after(("obj", self.noun("thing", depth=depth)))

    def intransitive(self, form: int = 0) -> Node:
        return Node(self.word("intransitive", form), "VERB")

    def adverb(self) -> tuple[str, Node]:
        return "advmod", Node(self.word("adverb"), "ADV")

    def with_subject(self, verb: Node, depth: int = 1) -> Node:
        """The subject, perhaps with an adverb behind it, in front of all that stands before the verb."""
        adverb = [self.adverb()] if self.chance(0.25) else []
        return verb.first(("nsubj", self.noun("person", depth=depth)), *adverb)

    def clause(self, depth: int = 0) -> Node:
        verb = self.transitive(depth) if self.chance(0.6) else self.intransitive()
        return self.with_subject(verb, depth)

    def comma(self) -> tuple[str, Node]:
        return "punct", Node(",", "PUNCT")

    def stop(self, verb: Node, sign: str = ".") -> Node:
        return verb.after(("punct", Node(sign, "PUNCT")))


class _Draw(_Phrases):
    """One method for each frame; it gives the root."""

    def plain(self) -> Node:
        return self.stop(self.with_subject(self.transitive(1)))

    def with_place(self) -> Node:
        return self.stop(self.with_subject(self.transitive()).after(("obl", self.phrase())))

    def place_in_front(self) -> Node:
        return self.stop(self.with_subject(self.transitive()).first(("obl", self.phrase()), self.comma()))

    def no_object(self) -> Node:
        return self.stop(self.with_subject(self.intransitive()).after(("obl", self.phrase())))

    def two_places(self) -> Node:
        verb = self.with_subject(self.intransitive()).after(("obl", self.phrase(0)), ("obl", self.phrase(0)))
        return self.stop(verb)

    def modal(self) -> Node:
        verb = self.transitive(form=-1).before(("aux", Node(self.word("modal"), "AUX")))
        if self.chance(0.5):
            verb.before(self.adverb())
        return self.stop(self.with_subject(verb))

    def two_auxiliaries(self) -> Node:
        verb = self.transitive(form=1)
        verb.before(("aux", Node(self.word("modal"), "AUX")))
        if self.chance(0.4):
            verb.before(self.adverb())
        return self.stop(self.with_subject(verb.before(("aux", Node("have", "AUX"))), depth=0))

    def negated(self) -> Node:
        verb = self.transitive(1, form=-1).before(("aux", Node("did", "AUX")), ("advmod", Node("not", "PART")))
        return self.stop(self.with_subject(verb))

    def passive(self) -> Node:
        return self.stop(self._passive().after(("obl", self.phrase(0, "by"))))

    def passive_in_a_place(self) -> Node:
        return self.stop(self._passive().after(("obl", self.phrase())))

    def _passive(self) -> Node:
        plural = self.chance(0.5)
        verb = Node(self.word("transitive", 1), "VERB")
        verb.before(
            ("nsubj:pass", self.noun("thing", plural=plural)), ("aux:pass", Node("were" if plural else "was", "AUX"))
        )
        return verb.before(self.adverb() if self.chance(0.4) else None)

    def attractor(self) -> Node:
        subject = self.noun("person", plural=self.chance(0.5), long=False).after(("nmod", self.phrase()))
        return self.stop(self.transitive(1).first(("nsubj", subject)))

    def relative_subject(self) -> Node:
        subject = self.noun("person", plural=self.chance(0.5), long=False)
        subject.after(("acl:relcl", self.transitive().first(("nsubj", Node("who", "PRON")))))
        return self.stop(self.transitive().first(("nsubj", subject)))

    def relative_object(self) -> Node:
        subject = self.noun("person", plural=self.chance(0.5), long=False)
        inner = Node(self.word("toward_person"), "VERB")
        inner.before(("obj", Node("that", "PRON")), ("nsubj", self.noun("person", depth=0)))
        subject.after(("acl:relcl", inner))
        return self.stop(self.intransitive().first(("nsubj", subject)).after(("obl", self.phrase(0))))

    def relative_at_the_end(self) -> Node:
        verb, thing = Node(self.word("transitive"), "VERB"), self.noun("thing", long=False)
        inner = Node(self.word("transitive"), "VERB")
        inner.before(("obj", Node("that", "PRON")), ("nsubj", self.noun("person", depth=0)))
        return self.stop(self.with_subject(verb.after(("obj", thing.after(("acl:relcl", inner))))))

    def two_verbs(self) -> Node:
        second = self.transitive().first(("cc", Node("and", "CCONJ")))
        return self.stop(self.with_subject(self.transitive()).after(("conj", second)))

    def two_subjects(self) -> Node:
        second = self.noun("person", depth=0).first(("cc", Node("and", "CCONJ")))
        return self.stop(self.transitive().first(("nsubj", self.noun("person", depth=0).after(("conj", second)))))

    def two_objects(self) -> Node:
        second = self.noun("thing", depth=0).first(("cc", Node(self.any(("and", "or")), "CCONJ")))
        verb = Node(self.word("transitive"), "VERB").after(("obj", self.noun("thing", depth=0).after(("conj", second))))
        return self.stop(self.with_subject(verb))

    def giving(self) -> Node:
        verb = Node(self.word("giving"), "VERB")
        verb.after(("iobj", self.noun("person", depth=0)), ("obj", self.noun("thing", depth=0)))
        return self.stop(self.with_subject(verb))

    def giving_to(self) -> Node:
        verb = Node(self.word("giving"), "VERB")
        verb.after(("obj", self.noun("thing")), ("obl", self.phrase(0, "to")))
        return self.stop(self.with_subject(verb))

    def saying(self) -> Node:
        inner = self.clause().first(("mark", Node("that", "SCONJ")))
        return self.stop(self.with_subject(Node(self.word("saying"), "VERB"), 0).after(("ccomp", inner)))

    def reason(self) -> Node:
        inner = self.clause().first(("mark", Node(self.word("conjunction"), "SCONJ")))
        return self.stop(self.clause().after(("advcl", inner)))

    def reason_in_front(self) -> Node:
        inner = self.clause().first(("mark", Node(self.word("conjunction"), "SCONJ")))
        return self.stop(self.clause().first(("advcl", inner), self.comma()))

    def wanting(self) -> Node:
        inner = self.transitive(form=-1).first(("mark", Node("to", "PART")))
        return self.stop(self.with_subject(Node(self.word("wanting"), "VERB")).after(("xcomp", inner)))

    def feeling(self) -> Node:
        plural = self.chance(0.5)
        copula = ("cop", Node("were" if plural else "was", "AUX"))
        root = Node(self.word("feeling"), "ADJ").before(("nsubj", self.noun("person", plural=plural)), copula)
        return self.stop(root.after(("obl", self.phrase(0))))

    def time_in_front(self) -> Node:
        time = ("advmod", Node(self.word("adverb_of_time"), "ADV"))
        return self.stop(self.with_subject(self.transitive(1)).first(time, self.comma()))

    def adverbs_between(self) -> Node:
        verb = self.transitive().before(self.adverb())
        return self.stop(verb.first(("nsubj", self.noun("person"))).after(("obl", self.phrase(0))))

    def adverb_behind(self) -> Node:
        return self.stop(self.transitive(1).first(("nsubj", self.noun("person"))).after(self.adverb()))

    def apposition(self) -> Node:
        second = self.noun("person", plural=False, depth=0).first(self.comma())
        subject = Node(self.word("name"), "PROPN").after(("appos", second), self.comma())
        return self.stop(self.transitive(1).first(("nsubj", subject)))

    def subject_behind(self) -> Node:
        verb = Node(self.word("standing"), "VERB").before(("obl", self.phrase()))
        return self.stop(verb.after(("nsubj", self.noun("thing"))))

    def question(self) -> Node:
        verb = self.transitive(form=-1).first(("nsubj", self.noun("person"))).first(("aux", Node("did", "AUX")))
        return self.stop(verb, "?")

    def object_in_front(self) -> Node:
        thing = Node(self.word("thing"), "NOUN", [("det", Node("which", "DET"))])
        verb = Node(self.word("transitive", -1), "VERB")
        verb.before(("obj", thing), ("aux", Node("did", "AUX")), ("nsubj", self.noun("person", depth=0)))
        return self.stop(verb.after(("obl", self.phrase(0))), "?")


FRAMES = tuple(name for name in vars(_Draw) if not name.startswith("_"))
