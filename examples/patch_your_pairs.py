"""Find the heads that carry your behaviour: exchange them between your own pairs of prompts.

    python examples/patch_your_pairs.py                       # examples/pairs.csv: the opposite of a word
    python examples/patch_your_pairs.py --csv my_pairs.csv    # yours: columns clean, corrupt, answer, foil

The two prompts of a pair have equally many tokens and differ in what should change the answer. Each head's output is
copied from the clean run into the corrupt one; the effect is how much of the way from foil to answer that goes.
"""

import argparse
import random
from pathlib import Path

import torch

import interp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", nargs="?", default="smollm2-135m")
parser.add_argument("--csv", default=str(Path(__file__).with_name("pairs.csv")))
parser.add_argument("--top", type=int, default=5)
parser.add_argument("--html", default="patching.html")
parser.add_argument("--quick", action="store_true", help="six pairs only")
asked = parser.parse_args()

torch.set_grad_enabled(False)
model = interp.load(asked.model)
pairs = interp.PromptPairs.from_csv(asked.csv, model)  # names the row that does not fit, if one does not
if asked.quick:
    pairs = pairs[:6]

# 1. Does the model do it at all? Without that there is nothing to explain.
logits = [model(torch.tensor([row]))[0, read] for row, read in zip(pairs.clean, pairs.read, strict=True)]
right = sum(int(one[a[0][0]] > one[f[0][0]]) for one, a, f in zip(logits, pairs.answer, pairs.foil, strict=True))
print(f"the answer beats the foil in {right} of {len(pairs)} clean prompts")

# 2. Choose heads on one half of the pairs, measure them on the other: else the largest of many would be partly luck.
half = len(pairs) // 2
chosen = interp.patch(model, pairs[:half], "z", over=("layer", "head")).top(asked.top)
effects = interp.patch(model, pairs[half:], "z", over=("layer", "head"))
table = effects.to_frame(normalize="pooled").set_index(["layer", "head"])  # share of the way from corrupt to clean
heads = [(int(layer), int(head)) for layer, head in zip(chosen["layer"], chosen["head"], strict=True)]
print(table.loc[heads, ["effect", "effect_low", "effect_high"]].round(3).to_string())

# 3. A control: as many heads drawn at random from the same layers.
draw = random.Random(0)
others = [(layer, head) for layer, _ in heads for head in range(model.cfg.n_heads) if (layer, head) not in heads]
control = draw.sample(sorted(set(others)), len(heads))
mean = {name: table.loc[some, "effect"].mean() for name, some in (("chosen", heads), ("random", control))}
print(f"mean effect of the chosen {mean['chosen']:.3f}, of random heads {mean['random']:.3f}")
print(f"the whole map: {effects.to_html(asked.html)}")
