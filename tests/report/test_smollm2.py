"""The report on the real model: everything that is claimed of it is measured, and the traps show."""

from __future__ import annotations

import pytest

import interp
from interp.report.null import TITLE


@pytest.mark.slow
def test_every_claim_about_smollm2_is_measured_and_the_traps_show(smollm2, tmp_path):
    report = interp.report(smollm2, n=12, keep=tmp_path / "kept")
    assert report.about["left_out"] == {}
    missing = report.claims.loc[report.claims["value"].isna()]
    # which balanced prompts cannot ask for; what a random model has no movers for; where no head has the name
    unasked = {"coreference.free_prediction", "backup.above_random"}
    unasked |= {"fact_recall.not_the_relation", "fact_relation.not_the_subject"}
    why_not = {row["id"]: row["why"] for row in missing.to_dict("records") if row["id"] not in unasked}
    assert all("was not among the heads" in why for why in why_not.values()), why_not
    claims = report.claims.set_index("id")
    assert claims.loc["name_mover.23.3_is_none", "verdict"] == "holds"
    assert claims.loc["name_mover.23.3_looks_at_s", "verdict"] == "holds"
    above = {kind: row for kind, row in report.tables[TITLE].set_index("kind").iterrows() if not row["why"]}
    assert len(above) >= 9 and not any(row["random_passing"] >= row["n_heads"] / 10 for row in above.values())
    assert claims.loc["coreference.16.5_farther", "value"] < 0.5 < claims.loc["coreference.16.5_nearer", "value"]
    assert "dequantised from 4 bits" in report.to_markdown()
