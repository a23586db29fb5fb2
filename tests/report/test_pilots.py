"""A pilot is compared with the interval, and a difference is explained, not hidden."""

from __future__ import annotations

from dataclasses import replace

import interp
import interp.report.make as making
from interp.report.claim import Claim, Measured, Pilot
from tests.report.conftest import ioi_pairs

_SET_UP = "other templates"


def _claim(id: str, low: float, high: float) -> Claim:
    pilot = Pilot(0.5, _SET_UP)
    return Claim(id, "name_mover", "A sentence.", lambda _: Measured(0.4, low, high), "≥", 0.3, pilot)


def test_a_difference_from_the_pilot_is_said_with_its_known_reason(names, ioi_report, monkeypatch):
    claims = [_claim("inside", 0.4, 0.6), _claim("lower", 0.3, 0.45), _claim("higher", 0.6, 0.7)]
    monkeypatch.setattr(making, "claims_for", lambda name, kinds: claims)
    report = interp.report(names.model, found=ioi_report.found, pairs=ioi_pairs(names))
    said = report.claims.set_index("id")["against_pilot"].to_dict()
    assert said["inside"] == "within the interval"
    assert said["lower"].startswith("ours is lower") and said["higher"].startswith("ours is higher")
    assert _SET_UP in said["lower"] and _SET_UP in report.to_markdown()
    assert set(report.claims["verdict"]) == {"holds"}, "the pilot plays no part in the verdict"


def test_the_caveat_names_what_everything_rests_on(names, ioi_report, monkeypatch):
    assert "one model, planted-ioi" in str(ioi_report)
    small = replace(ioi_report.found, about={**ioi_report.found.about, "model": "smollm2-135m"})
    monkeypatch.setattr(names.model, "cfg", replace(names.model.cfg, model_name="smollm2-135m"))
    report = interp.report(names.model, found=small, pairs=ioi_pairs(names))
    assert "one 135M model dequantised from 4 bits" in report.to_markdown()
    mine = report.claims.set_index("id").loc["name_mover.23.3_is_none"]
    assert mine["verdict"] == "cannot tell" and "23.3 has no name_mover score" in mine["why"]
