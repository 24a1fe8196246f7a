# %% [markdown]
# # The seed's experiment in ten minutes
#
# A small GPT is trained on the Python sources of this machine. The activations of one layer are stored, and
# dictionaries of five sizes are trained on them from two seeds. Features that a dictionary of another size or seed
# finds again are the ones to trust.
#
# Every step is a stage of a run folder: called again, it returns what is done, and after an interruption it continues.
#
# (This file is a notebook: VS Code and PyCharm open it as it is, Jupyter with `jupytext`.)

# %%
import json
from pathlib import Path

import sparsecode

# %% tags=["parameters"]
run = "ten-minutes"
gpt = {"minutes": 3.0}
rows = 4_000_000
dictionaries = {"sizes": "64-1024", "seeds": 2, "minutes": 2.0, "batch_size": 1024}
claims = {"minutes": 1.0, "start_minutes": 0.5}
toy = {"minutes": 0.6}

# %% [markdown]
# ## A transformer and its activations
#
# `harvest_activations` reads the MLP of layer 2 while the GPT runs over its text: rows of 128 values, with the token of
# each.

# %%
trained = sparsecode.train_gpt(run, **gpt)
sparsecode.harvest_activations(run, layer=2, rows=rows)
dataset = sparsecode.Dataset(f"{run}/activations/blocks.2.mlp.hook_post")
print(f"{dataset.rows:,} rows of {dataset.activation_dim}")

# %% [markdown]
# ## Dictionaries, all in one pass
#
# Sizes double from 64 to 1,024, each from two seeds. All of them see the same batches.

# %%
sparsecode.train_dicts(run, **dictionaries)
comparison = sparsecode.compare_dicts(run)
print(comparison.table())

# %% [markdown]
# MMCS is the mean of each feature's largest cosine with the other dictionary; "chance" is what random directions reach.
# Above 128 features, more directions come back than the space has dimensions.

# %%
print("found again above 0.9 in the same size from another seed, each the other's nearest:")
for name in comparison.names:
    if not name.endswith("_s0"):
        continue
    other = name.removesuffix("_s0") + "_s1"
    again = comparison.mutual(name, other) & (comparison.cosine(name, other) > 0.9)
    print(f"  {name:24} {int(again.sum()):5} of {len(again)}")

# %% [markdown]
# ## One feature
#
# The steadiest feature of the largest dictionary, and the rows on which it is strongest.

# %%
largest = max(comparison.names, key=lambda name: len(comparison.tensors[f"{name}.stability"]))
dictionary = sparsecode.Dictionary.load(f"{run}/dictionaries/{largest}")
feature = int(comparison.tensors[f"{largest}.stability"].argmax())
codes = dictionary.encode(dataset.read(0, min(20_000, dataset.rows)))[:, feature]
strongest = codes.topk(5)
tokenizer = json.loads(Path(run, "tokenizer.json").read_text())
words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
tokens = dataset.tokens(0, len(codes))
for value, row in zip(strongest.values.tolist(), strongest.indices.tolist(), strict=True):
    print(f"feature {feature}: {value:.2f} at token {words.get(int(tokens[row]), '?')!r}")

# %% [markdown]
# ## The claims, and a report
#
# The toy models have features that are known, so they show whether the method finds what is there. The report is one
# page with all figures.

# %%
sparsecode.check_claims(run, **claims)
sparsecode.toy(run, **toy)
sparsecode.write_report(run)
for number, finding in json.loads(Path(run, "claims.json").read_text())["claims"].items():
    print(f"{number} {finding['verdict']:16} {finding['number']}")
print(f"open {run}/report.html")
