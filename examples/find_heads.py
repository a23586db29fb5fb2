"""Find the heads of a model that do a job, and test each by ablation.

    python examples/find_heads.py                                # SmolLM2-135M, induction and previous-token heads
    python examples/find_heads.py path/to/model --kinds sink     # your model: a .gguf file, a folder, or a hub id

A head that *attends* as an induction head does need not matter. So the search has two halves: what each head attends to
(scores), and what is lost without it (effects). Only a head that has both gets the verdict.
"""

import argparse
from typing import Any

import torch

import interp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", nargs="?", default="smollm2-135m")
parser.add_argument("--kinds", nargs="+", default=["previous_token", "induction"], help="docs/heads.md lists them all")
parser.add_argument("--n", type=int, default=32, help="prompts to score on, and as many others to report on")
parser.add_argument("--html", default="heads.html", help="where the page with maps and tables goes")
parser.add_argument("--quick", action="store_true", help="one kind, few prompts, one head tested: a smoke test")
asked = parser.parse_args()

torch.set_grad_enabled(False)  # nothing is trained here
model = interp.load(asked.model)

# Quick: the tables are the same, but so few prompts leave wide intervals. Do not believe its verdicts.
options: dict[str, Any] = {"n": 6, "top": 1, "n_random_sets": 1} if asked.quick else {"n": asked.n}
kinds = asked.kinds[:1] if asked.quick else asked.kinds
scores = interp.find_heads(model, kinds, **options)
print(scores)

# The same numbers as a table of pandas: one row per kind and head.
table = scores.to_frame()
for kind in kinds:
    heads = table[table["verdict"] == kind]
    names = ", ".join(f"{layer}.{head}" for layer, head in zip(heads["layer"], heads["head"], strict=True)) or "none"
    print(f"{kind}: {names} ({len(heads)} of {len(table[table['kind'] == kind])} heads attend so and matter)")

print(f"maps and tables: {scores.to_html(asked.html)}")
