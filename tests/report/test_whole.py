"""The whole report's progress: what is kept costs nothing, what is ahead counts, and it never goes back."""

from __future__ import annotations

import interp
from interp.atlas.whole import WHOLE, Whole
from interp.heads.base import finder
from tests.report.conftest import IOI, ioi_pairs


def told(stages, kinds):
    seen = []
    whole = Whole(lambda *said: seen.append(said))
    whole.start([finder(kind) for kind in kinds])
    for stage in stages:
        whole(*stage)
    return [(done, total) for stage, done, total in seen if stage == WHOLE], seen


def test_what_was_skipped_counts_neither_as_done_nor_as_ahead():
    kinds = ["name_mover", "coreference", "induction"]
    (first, *_), _ = told([("ioi: attention", 1, 1)], kinds)
    (resumed, *_), _ = told([("coreference: attention", 1, 1)], kinds)
    assert 0 < first[0] < first[1] and 0 < resumed[0] < resumed[1] < first[1]


def test_a_stage_that_is_not_known_is_passed_on_and_changes_nothing():
    whole, seen = told([("something", 1, 2), ("ioi: attention", 1, 1), ("measuring a thing", 0, 1)], ["name_mover"])
    assert len(whole) == 1 and ("something", 1, 2) in seen and ("measuring a thing", 0, 1) in seen


def test_every_stage_of_a_search_is_foreseen_and_all_is_done_at_the_end(names):
    seen = []
    interp.report(names.model, IOI, n=12, pairs=ioi_pairs(names), progress=lambda *said: seen.append(said))
    whole = [(done, total) for stage, done, total in seen if stage == WHOLE]
    shares = [done / total for done, total in whole]
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[-1] == 1 and len({t for _, t in whole}) == 1
    foreseen = sum(stage == WHOLE for stage, _, _ in seen)
    others = [stage for stage, _, _ in seen if stage != WHOLE and not stage.startswith("measuring ")]
    assert foreseen == len(others), "a stage was not foreseen"
    assert seen[-1][0] == "claims"
