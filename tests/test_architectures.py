"""The page on architectures says what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"


@pytest.mark.slow
def test_every_code_block_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    space: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert len(blocks) == 4
    assert space["sentence"].shape == (384,)
    assert space["cache"]["decoder.cross_attn.pattern.1"].shape[2] == space["logits"].shape[1]
    assert space["cache"]["decoder.cross_attn.pattern.1"].shape[3] == space["cache"]["encoder.resid_pre.0"].shape[1]
    assert space["loss"].item() < 1.9  # chance is 2.3 nats averaged over both copies
    assert "2 layers" in capsys.readouterr().out
    assert torch.equal(space["ids"][:, :1], torch.tensor([[101]])) and space["ids"].shape[1] <= 6
