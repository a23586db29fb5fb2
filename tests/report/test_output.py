"""A report can be saved, shown and written, and what it says is never read as markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from interp.errors import InputError, StorageError
from interp.report import Report
from interp.runs.store import RunStore

HOSTILE = '</title><script src="https://evil.example/x.js">alert(1)</script>|`[x](javascript:1)`'


@pytest.fixture
def hostile(ioi_report):
    about = {**ioi_report.about, "model": HOSTILE, "left_out": {"backup": HOSTILE}, "corpus": HOSTILE}
    claims = ioi_report.claims.copy()
    claims.loc[0, ["claim", "why", "note"]] = HOSTILE
    return replace(ioi_report, claims=claims, about=about)


def test_a_page_asks_nothing_of_the_network_and_runs_nothing(ioi_report, hostile, tmp_path):
    for report in (ioi_report, hostile):
        page = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img|iframe|object|form|a)\b|\burl\(|@import", page, re.IGNORECASE)
    assert "&lt;script" in page and "evil.example" in page, "the hostile name is there, as text"
    assert "<script" not in hostile._repr_html_()


def test_markdown_takes_names_as_text(hostile):
    text = hostile.to_markdown()
    assert "\\<script" in text and not re.search(r"(?<!\\)<script", text)
    assert "\\[x\\](javascript" in text and "\\|" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    widths = [line.replace("\\|", "").count("|") for line in table]
    heads = [i for i, line in enumerate(table) if line.startswith("| ---")]
    assert len(heads) > 3 and all(widths[i - 1] == widths[i] == widths[i + 1] for i in heads)
    assert set(widths) == {widths[i] for i in heads}, "no cell breaks its table"


def test_everything_that_was_promised_stands_in_the_page(ioi_report, tmp_path):
    page = ioi_report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    markdown = ioi_report.to_markdown(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == markdown
    for text in (page, markdown):
        for said in (
            "Everything rests on one model",
            "Heads found",
            "Candidates that failed, and why",
            "no more than other heads of its layer",
            "Together",
            "What stays unexplained",
            "DOES NOT HOLD",
            "How it was measured",
            "Randomly initialised model of the same shape",
            "random model's best" if text is markdown else "random model&#x27;s best",
            "answers shuffled",
            "seconds",
            "corruption abc",
        ):
            assert said in text, said


def test_a_report_comes_back_as_it_was_saved(ioi_report, tmp_path):
    again = Report.load(ioi_report.save(tmp_path / "report"))
    pd.testing.assert_frame_equal(again.claims, ioi_report.claims)
    pd.testing.assert_frame_equal(again.found.frame, ioi_report.found.frame)
    assert list(again.tables) == list(ioi_report.tables) != []
    for name, table in ioi_report.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    assert again.about == ioi_report.about and str(again) == str(ioi_report)
    assert again.to_markdown() == ioi_report.to_markdown()


def test_what_is_no_report_is_refused(ioi_report, tmp_path):
    ioi_report.found.save(tmp_path / "heads")
    with pytest.raises(StorageError):
        Report.load(tmp_path / "heads")
    ioi_report.save(tmp_path / "report")
    (tmp_path / "report" / "claims.parquet").write_bytes(b"no parquet")
    with pytest.raises(StorageError, match="claims"):
        Report.load(tmp_path / "report")


def test_a_store_holds_reports(ioi_report, tmp_path):
    runs = RunStore(tmp_path / "runs")
    run = runs.save(ioi_report, spec={}, model_hash="ab" * 32, seed=0, timings={}, title="a report")
    (info,) = runs.list()
    assert info.kind == "report" and str(runs.open(run.id).results()) == str(ioi_report)


def test_an_unknown_claim_is_said_with_those_there_are(ioi_report):
    with pytest.raises(InputError, match=r"no claim 'x'.*name_mover\.exists"):
        ioi_report.verdict("x")
    assert sum(ioi_report.counts().values()) == len(ioi_report.to_frame())


def test_effects_by_corruption_and_template_are_shown_of_named_heads_and_others_counted(ioi_report):
    base = {"corruption": "<b>abc</b>", "direction": "noise", "effect_low": 0.1, "effect_high": 0.3, "logits": 1.5}
    heads = [("name_mover", "2.1", 0.2), ("name_mover", "1.0", 0.02), ("name_mover", "0.3", 0.01)]
    rows = [{"kind": kind, "head": head, "effect": effect, "n_items": 12, **base} for kind, head, effect in heads]
    templates = [
        {"kind": "name_mover", "head": "2.1", "template": "t|1", "n_items": 6, "score": 0.5, "measure": "noise"}
    ]
    tables = {
        "ioi: effects by corruption": pd.DataFrame(rows),
        "ioi: by template": pd.DataFrame(templates),
        "ioi: something else": pd.DataFrame({"kind": ["name_mover"], "head": ["77.7"]}),
    }
    report = replace(ioi_report, found=replace(ioi_report.found, tables=tables))
    text = report.to_markdown()
    assert "| 2.1 | 0.20 (0.10 to 0.30) | 12 | \\<b\\>abc\\</b\\> | noise | 1.50 |" in text
    assert "of 2 more heads" in text and "t\\|1" in text and "77.7" not in text
    assert "<b>abc" not in report._repr_html_() and "&lt;b&gt;abc" in report._repr_html_()


def test_what_decided_is_a_column_where_it_is_known(ioi_report):
    frame = ioi_report.found.frame.assign(decided_by="")
    frame.loc[frame["verdict"] == "name_mover", "decided_by"] = "denoise"
    report = replace(ioi_report, found=replace(ioi_report.found, frame=frame))
    without = replace(ioi_report, found=replace(ioi_report.found, frame=frame.drop(columns="decided_by")))
    assert "decided by |" in report.to_markdown() and "decided by |" not in without.to_markdown()
