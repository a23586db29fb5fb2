"""Can your labels be read off the residual stream, and where?

    python examples/probe_your_labels.py                        # examples/labels.csv: the tense of the verb before
    python examples/probe_your_labels.py --csv my_labels.csv    # yours: columns text, pos, label, and a group

`pos` is the word that is labelled (or an index of a token). Rows of one group are never split between fitting and
testing; here the group is the verb, so a probe cannot know the answer by knowing the verb. The labelled words are the
same in both tenses: what can be read there has been moved there by the model.

That a label can be read does not mean that the model uses it. `probes.test_use` asks that (docs/probes.md).
"""

import argparse
from pathlib import Path

import pandas as pd

import interp
import probes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", nargs="?", default="smollm2-135m")
parser.add_argument("--csv", default=str(Path(__file__).with_name("labels.csv")))
parser.add_argument("--group", default="verb", help="the column of groups")
parser.add_argument("--html", default="probes.html")
parser.add_argument("--quick", action="store_true", help="four layers, no random model")
asked = parser.parse_args()

model = interp.load(asked.model)
table = pd.read_csv(asked.csv)
# The untrained twin of the model is a control: what can be read there comes from the words, not from learning.
sites = [f"resid_pre.{layer}" for layer in (0, 4, 12, 20)] if asked.quick else "resid"
labels = pd.DataFrame({"text": range(len(table)), "pos": table["pos"], "label": table["label"]})  # text: which one
data = probes.dataset(
    model,
    table["text"].tolist(),
    labels,
    sites=sites,
    groups=table[asked.group].tolist(),
    random_init=not asked.quick,
)
results = probes.sweep(data, "ridge")

best = results.best("label")
print(f"{len(table)} labels; the best place is {best.place}")
print(results.top("label", 5).to_string(index=False))
print("score: accuracy on groups that were held out; embedding: the same where nothing has been moved yet;")
print("selectivity: score less that of a probe on random labels of words. A high score alone says little.")
print(f"all places: {results.to_html(asked.html)}")
