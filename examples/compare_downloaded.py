# %% [markdown]
# # Comparing downloaded dictionaries
#
# Which features of one published dictionary does another one have as well? Name two or more that were trained on the
# same activations, in any format of `docs/interop.md`: SAELens, dictionary_learning, sparsify, Gemma Scope and others.
# For example, two widths of Gemma Scope:
#
# ```sh
# hf download google/gemma-scope-2b-pt-res --include "layer_12/width_*/average_l0_8*/*" --local-dir gemma-scope
# ```
#
# (This file is a notebook: VS Code and PyCharm open it as it is, Jupyter with `jupytext`.)

# %%
import torch

import sparsecode as sc

# %% tags=["parameters"]
paths = {
    "16k": "gemma-scope/layer_12/width_16k/average_l0_82",
    "65k": "gemma-scope/layer_12/width_65k/average_l0_80",
}

# %%
dictionaries = {name: sc.load_dictionary(path) for name, path in paths.items()}
for name, dictionary in dictionaries.items():
    print(f"{name}: {dictionary}")

# %% [markdown]
# ## Every pair, exactly
#
# Each feature's nearest atom in the other dictionary, and the best one-to-one matching. Weights are compared, so no
# activations are needed.

# %%
comparison = sc.compare(dictionaries)
print(comparison.table())

# %% [markdown]
# ## How similar are the nearest atoms?
#
# A histogram of the largest cosines. Two separate modes mean that some features are shared and others are not.

# %%
first, second = list(dictionaries)[:2]
cosines = comparison.cosine(first, second).nan_to_num()
counts = torch.histc(cosines, bins=10, min=0, max=1)
for number, count in enumerate(counts.tolist()):
    print(f"{number / 10:.1f} to {number / 10 + 0.1:.1f} {'#' * round(50 * count / len(cosines)):50} {int(count)}")

# %% [markdown]
# ## Which features are shared, and which are new?
#
# Two features are the same one if each is the other's nearest and their cosine is above 0.9.

# %%
same = comparison.mutual(first, second) & (cosines > 0.9)
print(f"{int(same.sum())} of {len(same)} features of {first} are in {second}")
order = cosines.argsort()
for title, features in (("most alike", order.flip(0)[:3]), ("least alike", order[:3])):
    for feature in features.tolist():
        nearest = int(comparison.index(first, second)[feature])
        print(f"{title}: {first} {feature} and {second} {nearest}, {cosines[feature]:.3f}")

# %% [markdown]
# With pandas installed, `comparison.to_frame()` has a row for each feature and other dictionary. On the command line,
# `sparsecode compare A B --out matches.csv` writes the same, and `sparsecode eval` measures what each dictionary costs
# the model.
