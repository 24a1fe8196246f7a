# %% [markdown]
# # Dictionaries of your own model
#
# `sparsecode.fit` takes activations from anywhere: a tensor, an array, or an iterator of batches. Here they come from a
# small classifier of handwritten digits, which trains in seconds. Replace the first cells with your own model and a
# forward hook.
#
# (This file is a notebook: VS Code and PyCharm open it as it is, Jupyter with `jupytext`.)

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

import sparsecode as sc

# %% tags=["parameters"]
epochs = 30
copies = 100  # noisy copies of each image: the rows to train dictionaries on
sizes = [32, 64, 128, 256]
l1 = [1e-2, 3e-2]
samples = 2_000_000

# %%
torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)  # [1797, 64]
labels = torch.tensor(digits.target)

# %% [markdown]
# ## A model, and what its hidden layer says

# %%
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(epochs):
    for batch in torch.randperm(len(images)).split(128):
        noisy = images[batch] + 0.2 * torch.randn(len(batch), 64)
        loss = nn.functional.cross_entropy(model(noisy), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

kept: list[torch.Tensor] = []
handle = model[3].register_forward_hook(lambda module, given, value: kept.append(value))
with torch.no_grad():
    for _ in range(copies):
        model(images + 0.2 * torch.randn_like(images))
handle.remove()
x = torch.cat(kept)
x = x[torch.randperm(len(x))]
print(f"{len(x):,} rows of {x.shape[1]}")

# %% [markdown]
# ## Fit and compare
#
# One call trains a dictionary for every size, L1 coefficient and seed. `evaluate` measures one on any rows: FVU is the
# share of the variance that it does not explain, L0 the mean number of features active in a row.

# %%
dictionaries = sc.fit(x, sizes=sizes, l1=l1, seeds=2, samples=samples, batch_size=512)
comparison = sc.compare(dictionaries)
for name, dictionary in zip(comparison.names, dictionaries, strict=True):
    found = sc.evaluate(dictionary, x[:5000])
    steady = int((comparison.stability[name] > 0.5).sum())
    print(f"{name:20} FVU {found.fvu:.3f}  L0 {found.l0:5.1f}  in most others: {steady} of {dictionary.dict_size}")

# %% [markdown]
# ## Which digits does a feature stand for?
#
# The steadiest features of the first dictionary, and the share of each one's activity that falls on its favourite
# digit.

# %%
dictionary, name = dictionaries[0], comparison.names[0]
with torch.no_grad():
    hidden = model[:4](images)
codes = dictionary.encode(hidden)
for feature in comparison.stability[name].topk(5).indices.tolist():
    activity = torch.zeros(10).index_add(0, labels, codes[:, feature])
    digit = int(activity.argmax())
    share = float(activity[digit] / activity.sum().clamp(min=1e-9))
    print(
        f"feature {feature:3}: in {int(comparison.found_again()[name][feature])} others, {share:.0%} on digit {digit}"
    )

# %% [markdown]
# ## Does the model work on reconstructions?
#
# The last layer reads reconstructions in place of the hidden layer's own values.

# %%
with torch.no_grad():
    whole = (model(images).argmax(1) == labels).float().mean()
    spliced = (model[4](dictionary.reconstruct(hidden)).argmax(1) == labels).float().mean()
print(f"accuracy {whole:.3f}, on reconstructions {spliced:.3f}")

# %% [markdown]
# ## Keep one
#
# `dictionary.save` writes a pair of files that the command line reads, too.

# %%
dictionary.save("digits")
print(sc.Dictionary.load("digits"))
