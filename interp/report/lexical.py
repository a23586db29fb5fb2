"""Claims on heads that serve words: successors, retrieval from the context, related words, functions by example."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.heads.semantic_relation import attention_gained
from interp.heads.study import END
from interp.heads.ways import baseline
from interp.report.claim import Claim, Measured, Missing
from interp.report.counting import best_score, head_of, joint_effect, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import clopper_pearson, from_items, of_items

__all__ = ["CLAIMS"]


def _succeeds(evidence: Evidence) -> Measured:
    """How often the successor is likelier than what the other list wants."""
    evidence.rows("successor")

    def make() -> list[float]:
        study = evidence.study("succession", (END,))
        return of_items(baseline(study)[0] > 0, study.main.items, seed=evidence.seed)

    return from_items(evidence.once("succession: the unedited runs", make), "of prompts")


def _classes(evidence: Evidence) -> Measured:
    """In how many classes the best head turns at least half of the ordinals into their successor; each class has its
    exact binomial interval over ordinals."""
    rows = evidence.rows("successor")
    table = evidence.table("successor: share of successors by class")
    if table.empty or rows["score_select"].dropna().empty:
        raise Missing("these pairs do not say which class an ordinal is of")
    best = rows.loc[rows["score_select"].idxmax()].to_dict()
    mine = table.loc[(table["layer"] == best["layer"]) & (table["head"] == best["head"])].iloc[0]
    shares, ends = {}, []
    for part in str(mine["n"]).split(", "):
        name, _, n = part.rpartition(" ")
        shares[name] = float(mine[name])
        ends.append(clopper_pearson(round(shares[name] * int(n)), int(n)))
    both = (shares.values(), *zip(*ends, strict=True))
    value, low, high = (sum(end >= 0.5 for end in some) for some in both)
    said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    return Measured(value, low, high, f"classes (of {len(shares)})", None, f"{head_of(best)}: {said}")


def _share_of_retrieval(evidence: Evidence) -> Measured:
    """Share of heads at .1 and above; its interval counts those whose own lies above, and those that it reaches."""
    rows = evidence.rows("retrieval")
    ends = [evidence.ends(row, "score") for row in rows.to_dict("records")]
    scores, bare = rows["score"].to_numpy(), rows["without_first"].to_numpy()
    n = len(rows)
    value, without = (int(np.count_nonzero(one >= 0.1)) for one in (scores, bare))
    low = sum(low >= 0.1 for low, _ in ends)
    high = sum(not high < 0.1 and not (np.isnan(high) and score < 0.1)
               for (_, high), score in zip(ends, scores, strict=True))  # fmt: skip
    note = f"{value} of {n} heads; with the first token left out {without}; Wu (2024) found 3 to 6%"
    return Measured(value / n, low / n, high / n, "of heads", evidence.items("retrieval"), note)


def _on_average(evidence: Evidence) -> Measured:
    """What relatedness adds to the attention, averaged over all heads."""
    evidence.rows("semantic_relation")

    def make() -> dict[str, Any]:
        study = evidence.study("related_words", ("related", END))
        related, mismatched = (np.nanmean(one, axis=(1, 2)) for one in attention_gained(study))
        items = study.main.items
        return {
            "gained": of_items(related - mismatched, items, seed=evidence.seed, share=False),
            "related": of_items(related, items, seed=evidence.seed),
            "mismatched": of_items(mismatched, items, seed=evidence.seed),
        }

    found = evidence.once("related words: attention over all heads", make)
    note = f"related {found['related'][0]:.3f}, unrelated in its place {found['mismatched'][0]:.3f}"
    return from_items(found["gained"], "of attention", note)


def _gaining(evidence: Evidence) -> Measured:
    """Share of heads that gain .05 by the relation, and beside it of those that lose as much."""
    rows = evidence.rows("semantic_relation").to_dict("records")
    ends = [evidence.ends(row, "score") for row in rows]
    value, low = sum(row["score"] >= 0.05 for row in rows), sum(low >= 0.05 for low, _ in ends)
    high = sum(high >= 0.05 for _, high in ends)
    less = sum(row["score"] <= -0.05 for row in rows)
    note = f"{value} of {len(rows)} heads; {less} attend less by as much"
    return Measured(value / len(rows), low / len(rows), high / len(rows), "of heads",
                    evidence.items("semantic_relation"), note)  # fmt: skip


CLAIMS = (
    Claim(
        "succession.accuracy",
        "successor",
        "The model prefers the successor to that of another list on at least 90% of the prompts.",
        _succeeds,
        "≥",
        0.9,
    ),
    Claim(
        "successor.score",
        "successor",
        "Some head's OV circuit puts the successor of at least half of the ordinals above every other member of their "
        "class.",
        best_score("successor"),
        "≥",
        0.5,
    ),
    Claim(
        "successor.classes",
        "successor",
        "The same head does so in at least three classes: it adds one, whatever is counted.",
        _classes,
        "≥",
        3,
    ),
    Claim(
        "successor.exists",
        "successor",
        "Some head does so, raises the successor by what it moves from the last ordinal, and carries at least 5% of "
        "the answer.",
        some_head("successor"),
        "≥",
        1,
        explain="Where the weights of a head increment and its exchange costs nothing, the model has a successor head "
        "that these prompts do not use.",
    ),
    Claim(
        "retrieval.score",
        "retrieval",
        "Some head looks hardest at the needle's next word for at least 10% of the words that the model writes.",
        best_score("retrieval"),
        "≥",
        0.1,
    ),
    Claim(
        "retrieval.some",
        "retrieval",
        "At least 3% of all heads do so.",
        _share_of_retrieval,
        "≥",
        0.03,
    ),
    Claim(
        "retrieval.few",
        "retrieval",
        "At most 6% of all heads do so: retrieval is the work of few.",
        _share_of_retrieval,
        "≤",
        0.06,
    ),
    Claim(
        "retrieval.exists",
        "retrieval",
        "Some head does so, raises the word that it looks at, and carries at least 5% of the answer.",
        some_head("retrieval"),
        "≥",
        1,
    ),
    Claim(
        "retrieval.joint",
        "retrieval",
        "The retrieval heads' candidates, exchanged together, carry at least 5% of the answer more than any random set "
        "of the same layers.",
        joint_effect("retrieval", beyond_random=True),
        "≥",
        0.05,
    ),
    Claim(
        "semantic_relation.score",
        "semantic_relation",
        "Related words attend to each other in some head: it gives a word at least .05 more of its attention because "
        "the two are related.",
        best_score("semantic_relation"),
        "≥",
        0.05,
        explain="A word can only look back, so it is the second of the two that attends to the first.",
    ),
    Claim(
        "semantic_relation.on_average",
        "semantic_relation",
        "Related words attend to each other in general: over all heads a word gives a related one at least .01 more of "
        "its attention than an unrelated one in its place.",
        _on_average,
        "≥",
        0.01,
    ),
    Claim(
        "semantic_relation.few",
        "semantic_relation",
        "It is the work of few heads: at most 10% of them gain .05 by the relation.",
        _gaining,
        "≤",
        0.1,
    ),
    Claim(
        "semantic_relation.exists",
        "semantic_relation",
        "Some head gains .05, raises the related word by what it moves from the first, and carries at least 5% of the "
        "answer.",
        some_head("semantic_relation"),
        "≥",
        1,
        explain="Where heads attend so and carry nothing, relatedness can be seen in attention but is not what the "
        "answer rests on.",
    ),
    Claim(
        "function_vector.score",
        "function_vector",
        "Some head's mean output over prompts that show a function raises p(answer) by at least .02 where the examples "
        "are shuffled.",
        best_score("function_vector"),
        "≥",
        0.02,
    ),
    Claim(
        "function_vector.exists",
        "function_vector",
        "Some head's does so by at least 5% of what the examples themselves bring, beyond other heads of its layer.",
        some_head("function_vector"),
        "≥",
        1,
    ),
    Claim(
        "function_vector.joint",
        "function_vector",
        "The candidates' outputs together bring at least 5% more than any random set of the same layers.",
        joint_effect("function_vector", beyond_random=True),
        "≥",
        0.05,
    ),
)
