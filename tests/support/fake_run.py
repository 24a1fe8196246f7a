"""Makes a run folder as the stages before `compare` leave it, from known features, in a second.

The space has D dimensions and TRUE true features; a dictionary of n features holds the first n / 2 of them (at most
all), slightly turned, in its own order; the rest are random directions, of which a third never fire. Each token of
the text activates one true feature, so that examples can be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.comparison import Comparison
from sparsecode.corpus import TextSettings, Tokens, prepare_tokens
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.config import HarvestConfig, TrainDictsConfig, TrainGptConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.run import Run
from sparsecode.science.claims.starts import STARTS
from sparsecode.sweep import Dictionary, dictionary_name

D, TRUE, CONTEXT, L1 = 32, 64, 32, 0.02
SIZES, SEEDS = (16, 32, 64, 128), (0, 1)
HOOK = "blocks.2.mlp.hook_post"
WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "class",
    "return",
    "import",
    "self",
    "<tag>",
    "naïve",
    "日本",
    "\tif",
    "\n" + " " * 40 + "deep",
)


def true_features() -> Tensor:
    """[TRUE, D] unit rows."""
    return torch.nn.functional.normalize(torch.randn(TRUE, D, generator=torch.Generator().manual_seed(7)))


def dictionary(size: int, seed: int, l1: float = L1) -> tuple[Dictionary, Tensor]:
    """A dictionary, and for each of its features the true one it holds, or -1."""
    generator = torch.Generator().manual_seed(1000 * seed + size)
    known = min(size // 2, TRUE)
    start = torch.nn.functional.normalize(torch.randn(size, D, generator=generator))
    held = torch.full((size,), -1)
    held[torch.randperm(size, generator=generator)[:known]] = torch.arange(known)
    turned = true_features()[held.clamp(min=0)] + 0.03 * torch.randn(size, D, generator=generator)
    atoms = torch.where((held >= 0)[:, None], turned, start + 0.1 * torch.randn(size, D, generator=generator))
    atoms = torch.nn.functional.normalize(atoms)
    density = torch.where(held >= 0, 0.02, 0.001)
    density[(held < 0) & (torch.arange(size) % 3 == 0)] = 0.0
    dead = int((density == 0).sum())
    metrics = {"mse": 0.1, "l1": 2.0, "l0": 3 + size / 40, "fvu": 0.5 / size**0.25, "dead": dead, "rows": 4096}
    meta = {
        "l1": l1, "seed": seed, "hook_point": HOOK, "dataset_fingerprint": "d", "samples_seen": 10_000,
        "metrics": metrics,
        "loss": {"mse": "mean", "l1_scale": "plain", "tied": False, "pre_bias": False, "project_gradient": True},
    }  # fmt: skip
    features = {"density": density, "initial_cosine": (atoms * start).sum(dim=1)}
    bias = torch.full((size,), -0.5)
    return Dictionary(atoms.clone(), bias, atoms, scale=0.5, meta=meta, features=features), held


@dataclass
class FakeDataset:
    """Activations in memory: row r is the true feature of its token."""

    activations: Tensor
    ids: npt.NDArray[np.int32]
    provenance: dict[str, Any]

    fingerprint = "d"
    path = Path("fake") / HOOK

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def activation_dim(self) -> int:
        return self.activations.shape[1]

    @property
    def statistics(self) -> dict[str, Any]:
        return {"mean": self.activations.mean(0)}

    def read(self, start: int, stop: int) -> Tensor:
        return self.activations[start:stop]

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        return self.ids[start:stop]

    contexts_known = True

    def contexts(self) -> Iterator[npt.NDArray[np.int64]]:
        starts = np.arange(0, self.rows, self.provenance["context"])
        yield np.stack([np.arange(len(starts)), starts, np.append(starts[1:], self.rows)], axis=1)

    def context_bounds(self, row: int) -> tuple[int, int]:
        every = self.provenance["context"]
        return row // every * every, min((row // every + 1) * every, self.rows)


def text() -> str:
    """Seeded words; most of them become a token of their own."""
    order = np.random.default_rng(0).integers(0, len(WORDS), 6000)
    return " ".join(WORDS[i] + ("\n" if i % 5 == 0 else "") for i in order)


def make_fake_run(
    path: Path, sizes: tuple[int, ...] = SIZES, seeds: tuple[int, ...] = SEEDS
) -> tuple[Run, FakeDataset]:
    """Text, tokens, loss curve and dictionaries in `path`; the dataset stays in memory."""
    path.mkdir(parents=True, exist_ok=True)
    run = Run(path)
    words = path / "text"
    words.mkdir()
    for i in range(4):
        (words / f"{i}.txt").write_text(text()[i * 5000 : (i + 1) * 5000], encoding="utf-8")
    config = TrainGptConfig(text=(str(words),), vocab_size=300, val_fraction=0.25)
    with open_stage(run, "train-gpt", config) as stage:
        tokens = prepare_tokens(run, config.part(TextSettings))
        for step in range(20, 401, 20):
            run.log("train-gpt", step, loss=5.7 * step**-0.08, of=20, tokens_seen=step * 8192)
            if step % 100 == 0:
                run.log("train-gpt", step, val_loss=5.8 * step**-0.08, bits_per_byte=2.0, sample="")
        stage.finish(
            {"fingerprint": "g", "tokens_fingerprint": tokens.fingerprint, "val_loss": 3.591, "unigram_loss": 5.2,
             "bits_per_byte": 2.012, "steps": 400, "tokens_seen": 3_276_800}
        )  # fmt: skip
    dataset = _harvested(run, tokens)
    (run.activations_path / HOOK).mkdir(parents=True)
    names = []
    with open_stage(run, "train-dicts", TrainDictsConfig()) as stage:
        for size in sizes:
            for seed in seeds:
                name = dictionary_name(size, L1, seed)
                dictionary(size, seed)[0].save(run.dictionaries_path / name)
                names.append(name)
        stage.finish({"dictionaries": names, "dataset_fingerprint": "d", "hook_point": HOOK, "samples": 10_000})
    return run, dataset


def fake_sweeps(run: Run, *, tilt: float = 0.1) -> tuple[tuple[Run, Comparison], tuple[Run, Comparison]]:
    """Stands in for `sweeps.train_both`: L0 falls with the penalty, and grows with the size to the power `tilt`."""
    found = []
    for scale in ("plain", "per-size"):
        own = Run(run.path / "science" / scale)
        names = []
        with open_stage(own, "train-dicts", TrainDictsConfig(l1_scale=scale)) as stage:
            for size in SIZES:
                for step in (0.5, 1.0, 2.0, 4.0):
                    l1 = L1 * step * (D if scale == "per-size" else 1)
                    made, _ = dictionary(size, 5, l1)
                    penalty = l1 / size if scale == "per-size" else l1
                    made.meta["metrics"]["l0"] = size**tilt * penalty**-0.7
                    made.meta["loss"]["l1_scale"] = scale
                    names.append(dictionary_name(size, l1, 5))
                    made.save(own.dictionaries_path / names[-1])
            stage.finish({"dictionaries": names, "hook_point": HOOK})
        found.append((own, compare_dicts(own, quiet=True)))
    return found[0], found[1]


def fake_starts(run: Run) -> dict[str, tuple[Run, Comparison]]:
    """What `sweeps.train_starts` gives: the fake dictionaries of two seeds under every start's name."""
    found = {}
    for kind in STARTS:
        own = Run(run.path / "science" / f"start-{kind}")
        names = []
        with open_stage(own, "train-dicts", TrainDictsConfig()) as stage:
            for size in SIZES:
                for seed in (0, 1):
                    names.append(dictionary_name(size, L1, seed))
                    dictionary(size, seed)[0].save(own.dictionaries_path / names[-1])
            stage.finish({"dictionaries": names, "hook_point": HOOK})
        found[kind] = (own, compare_dicts(own, quiet=True))
    return found


def _harvested(run: Run, tokens: Tokens) -> FakeDataset:
    count = min(len(tokens.train) // CONTEXT * CONTEXT, 4096)
    ids = np.array(tokens.train[:count], dtype=np.int32)
    strength = torch.rand(count, 1, generator=torch.Generator().manual_seed(3)) + 0.5
    activations = true_features()[torch.from_numpy(ids.astype(np.int64)) % TRUE] * strength
    with open_stage(run, f"harvest/{HOOK}", HarvestConfig(), inputs={"gpt": "g"}) as stage:
        stage.finish({"hook_point": HOOK, "rows": count, "activation_dim": D, "fingerprint": "d"})
    provenance = {
        "context": CONTEXT, "tokens_fingerprint": tokens.fingerprint, "hook_point": HOOK, "model_fingerprint": "g",
    }  # fmt: skip
    return FakeDataset(activations, ids, provenance)
