"""Claims on heads that are known by a pattern: previous token, duplicate token, sink, induction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.circuits.copying import eigenvalue_score
from interp.circuits.ov import copying_ratio
from interp.heads.data import tiled_blocks
from interp.model.tokens import Batch
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import best_score, joint_effect, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_items
from interp.results.heads import head_of
from interp.stats import bootstrap_interval
from interp.tasks.load import load as load_task

__all__ = ["CLAIMS", "NAMED"]

_COPYING_PROMPTS = 16
_REPEATS = (
    "The pilot drew one seed of longer repeats and gave no interval; ours are single repeats of varied period behind "
    "random filler, so that position does not give the copy away."
)


def _share_of_sinks(evidence: Evidence) -> Measured:
    """Share of heads above .5; its interval counts those whose own interval lies above, and those whose reaches it."""
    rows = evidence.rows("sink")
    names = ("score", "score_low", "score_high", "score_no_bos")
    ends = np.array([evidence.ends(row, "score") for row in rows.to_dict("records")])
    rows = rows.assign(score_low=ends[:, 0], score_high=np.where(np.isnan(ends[:, 1]), rows["score"], ends[:, 1]))
    value, low, high, bare = (np.count_nonzero(rows[name] > 0.5) for name in names)
    note = f"{value} of {len(rows)} heads; without BOS {bare}"
    return Measured(value / len(rows), low / len(rows), high / len(rows), "of heads", evidence.items("sink"), note)


def _sink_shift(evidence: Evidence) -> Measured:
    """How much less heads rest on the first token when it is no BOS: the mean over sink heads, bootstrapped over
    heads."""
    rows = evidence.rows("sink")
    mine = rows.loc[(rows["score"] >= 0.5) & rows["score_no_bos"].notna()]
    if len(mine) < 2:
        raise Missing("fewer than two heads rest on the first token, or there is no BOS to leave out")
    shift = (mine["score"] - mine["score_no_bos"]).to_numpy()
    low, high = bootstrap_interval(shift[:, None], seed=evidence.seed)
    return Measured(float(shift.mean()), float(low[0]), float(high[0]), "of attention", len(mine), "items are heads")


def _second_copy(evidence: Evidence) -> Measured:
    """Loss on fresh tokens less loss on the second copy."""

    def make() -> list[float]:
        from interp.tasks.measure import values_of

        task = load_task("repeated_tokens", evidence.model, n=evidence.n, seed=evidence.seed, split="report")
        return of_items(values_of(task, evidence.model), task.items, seed=evidence.seed, share=False)

    return from_items(evidence.once("loss of fresh and of repeated tokens", make), "nats")


def _copying(evidence: Evidence) -> pd.DataFrame:
    """The copying ratio of each head with its interval over prompts; 0 for one that raises no token."""

    def make() -> dict[str, Any]:
        n = min(evidence.n, _COPYING_PROMPTS)
        batch = tiled_blocks(evidence.model, evidence.n + n, evidence.seed, True)
        rows = [copying_ratio(evidence.model, Batch(row[None])).double().numpy() for row in batch.tokens[evidence.n :]]
        flat = np.stack(rows).reshape(n, -1)
        scored = ~np.isnan(flat).all(axis=0)
        mean, low, high = np.full((3, flat.shape[1]), np.nan)
        mean[scored] = np.nanmean(flat[:, scored], axis=0)
        low[scored], high[scored] = bootstrap_interval(flat[:, scored], seed=evidence.seed)
        layer, head = np.divmod(np.arange(flat.shape[1]), rows[0].shape[1])
        values = {"layer": layer, "head": head, "copying": mean, "copying_low": low, "copying_high": high}
        return {name: one.tolist() for name, one in values.items()} | {"n": n}

    table = dict(evidence.once("copying of each head", make))
    n = table.pop("n")
    frame = pd.DataFrame(table).fillna(0.0)  # a head that raises no token at all copies none
    frame.attrs["n"] = n
    return frame


def _match_without_copying(evidence: Evidence) -> Measured:
    """How many heads match prefixes by .4 and copy less than twice as much as chance."""
    rows, copying = evidence.rows("induction"), _copying(evidence)
    both = rows.merge(copying, on=["layer", "head"])
    ends = np.array([evidence.ends(row, "score") for row in both.to_dict("records")])
    both = both.assign(score_low=ends[:, 0], score_high=np.where(np.isnan(ends[:, 1]), both["score"], ends[:, 1]))
    matches = {end: both[f"score{end}"] >= 0.4 for end in ("", "_low", "_high")}
    little = {"": both["copying"] < 2, "_low": both["copying_high"] < 2, "_high": both["copying_low"] < 2}
    value, low, high = (int(np.count_nonzero(matches[end] & little[end])) for end in ("", "_low", "_high"))
    mine = both.loc[matches[""] & little[""]].to_dict("records")
    note = "heads: " + (", ".join(f"{head_of(row)} (copying {row['copying']:.1f})" for row in mine) or "none")
    return Measured(value, low, high, "heads", copying.attrs["n"], note)


def _matching(evidence: Evidence) -> Measured:
    """How many heads match prefixes by .4; the interval counts those whose own lies above, and those it reaches."""
    rows = evidence.rows("induction").to_dict("records")
    ends = [evidence.ends(row, "score") for row in rows]
    value = sum(row["score"] >= 0.4 for row in rows)
    low, high = sum(low >= 0.4 for low, _ in ends), sum(not high < 0.4 for _, high in ends)
    return Measured(value, low, high, "heads", evidence.items("induction"))


def _eigenvalues(evidence: Evidence) -> Measured:
    """The median over all heads of Σ Re λ / Σ |λ| of W_O W_U W_E W_V, bootstrapped over heads; no gains folded in."""
    evidence.rows("induction")

    def make() -> list[float]:
        stack = evidence.model.main
        with torch.no_grad():
            both = evidence.model.W_U.float() @ stack.embed.weight.float()  # once, not V × V for every head
            scores = []
            for layer, config in enumerate(stack.config.blocks):
                attn = stack.block(layer).attn
                group = config.attn.n_heads // attn.W_V.shape[0]
                for head in range(config.attn.n_heads):
                    found = torch.linalg.eigvals(attn.W_O[head].float() @ both @ attn.W_V[head // group].float())
                    scores.append(float(eigenvalue_score(found)))
        return scores

    scores = np.array(evidence.once("copying by eigenvalues", make))
    drawn = np.random.default_rng([evidence.seed, *b"median"]).integers(len(scores), size=(2000, len(scores)))
    low, high = np.quantile(np.median(scores[drawn], axis=1), [0.025, 0.975])
    note = f"items are heads; {np.count_nonzero(scores > 0.5)} of {len(scores)} above .5"
    return Measured(float(np.median(scores)), float(low), float(high), "of all |λ|", len(scores), note)


def _feeds_induction(evidence: Evidence) -> Measured:
    """Harm to the second copy of ablating the best previous-token head alone."""
    rows = evidence.rows("previous_token")
    best = rows.loc[rows["score_select"].idxmax()].to_dict()
    return evidence.column("previous_token", head_of(best), "effect", "nats")


CLAIMS = (
    Claim(
        "previous_token.score",
        "previous_token",
        "Some head puts at least .4 of its attention on the token before.",
        best_score("previous_token"),
        "≥",
        0.4,
    ),
    Claim(
        "previous_token.exists",
        "previous_token",
        "Some head does so and costs the second copy of a repeated block at least .1 nat when it is ablated.",
        some_head("previous_token"),
        "≥",
        1,
    ),
    Claim(
        "previous_token.feeds_induction",
        "previous_token",
        "Ablating the best previous-token head alone costs the second copy at least .1 nat: induction needs it.",
        _feeds_induction,
        "≥",
        0.1,
    ),
    Claim(
        "duplicate_token.score",
        "duplicate_token",
        "Some head puts at least .4 of its attention on earlier copies of its token.",
        best_score("duplicate_token"),
        "≥",
        0.4,
    ),
    Claim(
        "duplicate_token.exists",
        "duplicate_token",
        "Some head does so and its ablation costs at least 5% of the indirect-object logit difference.",
        some_head("duplicate_token"),
        "≥",
        1,
    ),
    Claim(
        "sink.share",
        "sink",
        "At least a quarter of all heads put more than half of their attention on the first token.",
        _share_of_sinks,
        "≥",
        0.25,
    ),
    Claim(
        "sink.exists",
        "sink",
        "Some head does so and writes less than the median of its layer.",
        some_head("sink"),
        "≥",
        1,
    ),
    Claim(
        "sink.bos",
        "sink",
        "Heads that rest on a BOS do so as much on whatever stands first: without BOS at most .1 less.",
        _sink_shift,
        "≤",
        0.1,
        explain="So scores of heads depend on whether there is a first token to rest on, and every score is given "
        "with and without it.",
    ),
    Claim(
        "induction.repeats",
        "induction",
        "The model predicts a repeated block at least 1 nat better than a fresh one.",
        _second_copy,
        "≥",
        1.0,
    ),
    Claim(
        "induction.score",
        "induction",
        "Some head puts at least .4 of its attention on what followed earlier copies of its token.",
        best_score("induction"),
        "≥",
        0.4,
    ),
    Claim(
        "induction.exists",
        "induction",
        "Some head does so, copies at least twice as much as chance, and its ablation, alone or with the other best "
        "ones, costs at least .1 nat.",
        some_head("induction"),
        "≥",
        1,
    ),
    Claim(
        "induction.joint",
        "induction",
        "Ablating the best heads together costs the second copy at least .1 nat more than any of the random sets of "
        "the same layers.",
        joint_effect("induction", beyond_random=True),
        "≥",
        0.1,
    ),
    Claim(
        "induction.matching_is_not_copying",
        "induction",
        "Attention alone mislabels: some head matches prefixes by at least .4 and copies less than twice chance.",
        _match_without_copying,
        "≥",
        1,
    ),
)


def _copying_of(head: str) -> Any:
    def measure(evidence: Evidence) -> Measured:
        row, table = evidence.row("induction", head), _copying(evidence)
        mine = table.loc[(table["layer"] == row["layer"]) & (table["head"] == row["head"])].iloc[0]
        note = f"prefix matching {row['score']:.2f}; {row['verdict'] or 'no verdict'}"
        value, low, high = (float(mine[name]) for name in ("copying", "copying_low", "copying_high"))
        return Measured(value, low, high, "times chance", table.attrs["n"], note)

    return measure


def _score_of(kind: str, head: str) -> Any:
    return lambda evidence: evidence.column(kind, head, "score")


NAMED = (
    Claim(
        "previous_token.16.0",
        "previous_token",
        "Ablating 16.0, the main previous-token head, costs the second copy at least 2.9 nats (half of the pilot's).",
        lambda evidence: evidence.column("previous_token", "16.0", "effect", "nats"),
        "≥",
        2.9,
        Pilot(8.74 - 2.93, f"2.93 → 8.74. {_REPEATS}"),
    ),
    Claim(
        "sink.109",
        "sink",
        "At least a fifth of the heads (half of the pilot's 109 of 270) rest more than .5 on the first token.",
        _share_of_sinks,
        "≥",
        0.2,
        Pilot(109 / 270, "The pilot's prompts were other text, and its attention to the first token counted query 0."),
    ),
    Claim(
        "induction.pilot_repeats",
        "induction",
        "The model predicts a repeated block at least 5.5 nats better than a fresh one (half of the pilot's).",
        _second_copy,
        "≥",
        5.5,
        Pilot(14.0 - 3.0, f"second half 2.9 to 3.1, first half 14.0. {_REPEATS}"),
    ),
    Claim(
        "induction.pilot_matching",
        "induction",
        "At least four heads match prefixes by .4 (half of the pilot's eight).",
        _matching,
        "≥",
        4,
        Pilot(8, "The pilot drew one seed of the same layout (25 × 4 with BOS) and gave no interval."),
    ),
    Claim(
        "induction.17.5",
        "induction",
        "17.5 matches prefixes by at least .4.",
        _score_of("induction", "17.5"),
        "≥",
        0.4,
    ),
    Claim(
        "induction.eigenvalues",
        "induction",
        "Copying by eigenvalues is a weak sign here: the median over all heads is at most .5.",
        _eigenvalues,
        "≤",
        0.5,
        Pilot(0.43, "The pilot does not say over which heads its median goes."),
    ),
    *(
        Claim(
            f"induction.{head}",
            "induction",
            f"{head} matches prefixes by at least .4.",
            _score_of("induction", head),
            "≥",
            0.4,
            Pilot(pilot, "The pilot drew one seed of the same layout (25 × 4 with BOS) and gave no interval."),
        )
        for head, pilot in (("18.6", 0.91), ("17.3", 0.78), ("17.4", 0.72))
    ),
    *(
        Claim(
            f"induction.copying.{head}",
            "induction",
            f"{head} matches prefixes but hardly copies: less than twice chance.",
            _copying_of(head),
            "≤",
            2.0,
        )
        for head in ("17.3", "17.4", "17.5")
    ),
    Claim(
        "induction.top8",
        "induction",
        "Ablating the best heads together costs the second copy at least 4.3 nats (half of the pilot's).",
        joint_effect("induction"),
        "≥",
        4.3,
        Pilot(11.48 - 2.93, f"2.93 → 11.48 for eight heads, random eights 3.2 to 3.8. {_REPEATS}"),
    ),
    Claim(
        "induction.top8_beyond_random",
        "induction",
        "That is at least 3.8 nats more than the most harmful random set of the same layers (half of the pilot's).",
        joint_effect("induction", beyond_random=True),
        "≥",
        3.8,
        Pilot(11.48 - 3.8, f"11.48 against 3.2 to 3.8 of random eights. {_REPEATS}"),
    ),
)
