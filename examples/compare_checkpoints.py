"""Train a small model, and see what its heads do in the first and the last checkpoint.

    python examples/compare_checkpoints.py                  # two layers learn to copy by induction: some minutes
    python examples/compare_checkpoints.py --recipe copy    # one layer learns to look a fixed distance back

The comparison works for any two models with the same heads: replace `before` and `after` by two `interp.load(…)`, for
instance `interp.load("org/model", revision="step1000")` and `interp.load("org/model", revision="main")`.
"""

import argparse
import tempfile

import pandas as pd
import torch

import interp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--recipe", default="induction", help="interp.dynamics.recipes() has them all")
parser.add_argument("--steps", type=int, help="updates; the recipe's own number unless given")
parser.add_argument("--out", help="folder for the checkpoints: the same call again goes on from there")
parser.add_argument("--quick", action="store_true", help="the recipe `copy` for 128 steps")
asked = parser.parse_args()
recipe, steps = ("copy", 128) if asked.quick else (asked.recipe, asked.steps)

out = asked.out or tempfile.mkdtemp(prefix="interp-training-")
found = interp.dynamics.train(recipe, out=out, seed=0, steps=steps)
first, last = found.steps[0], found.steps[-1]
before, after = found.load(first), found.load(last)
torch.set_grad_enabled(False)

# What was learned. The rows are drawn from another seed than those of the training.
drawn = interp.dynamics.recipe(recipe).data.draw(64, torch.Generator().manual_seed(1), held_out=True)
held_out = found.held_out()
print(held_out[held_out["step"].isin([first, last])].to_string(index=False))

# How attention changed: of each kind the sum of all heads' scores, and of its best head, with 95% intervals of rows.
grown = interp.emergence({first: before, last: after}, tokens=drawn.tokens, kinds=["previous_token", "induction"])
print(f"\nattention, step {first} → {last}")
print(grown.changes[["measure", "series", "start", "end"]].round(3).to_string(index=False))

# And which heads matter: how much the loss rises without each. Attention alone would not say. Counted are the
# tokens that can be known at all (the second copy); the last token of a row is only predicted, so it is not read.
tokens, counted = drawn.tokens[:, :-1], drawn.all_scored[:, :-1]
effects = []
for model in (before, after):
    without = interp.ablate(model, tokens, "heads", counted=counted)
    effects.append(without.to_frame().set_index("target")["effect"])
table = pd.DataFrame({f"step {first}": effects[0], f"step {last}": effects[1]})
table = table.sort_values(f"step {last}", ascending=False)
print("\nloss without a head, less the loss with it (nats)")
print(table.head(8).round(3).to_string())
print(f"checkpoints: {out}")
