"""The sweep over size and L1 under both normalisations, beside the run's own: RUN/science/plain and /per-size.

Each is a run folder of its own with dictionaries, metrics and a comparison, so that every command reads it and
training resumes as that of any other. The claims are about ReLU dictionaries with L1, so these are, whatever kinds the
run has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.comparison import Comparison
from sparsecode.pipeline import plan
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.config import ClaimsConfig, CompareConfig, TrainDictsConfig
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.settings import OF_KINDS
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.science.claims import starts
from sparsecode.sweep.settings import parse_l1

FOLDER = "science"
SCALES = ("plain", "per-size")
STEPS = (0.5, 1.0, 2.0, 4.0)  # times the run's own L1, where none are given: from a dense to a nearly empty code
DEFAULT_SAMPLES = 2_000_000
SHARE = 0.4  # of --minutes for the first sweep: divided by size, large dictionaries are denser and take longer


def train_both(
    run: Run, config: ClaimsConfig, dataset: str, settings: dict[str, Any], dimensions: int, *, quiet: bool
) -> tuple[tuple[Run, Comparison], tuple[Run, Comparison]]:
    """Trains and compares both, on the same rows in the same order, the second on as many as the first.

    Args:
        run: the run that they lie in.
        config: sizes, coefficients and how long.
        dataset: folder of the activations.
        settings: those of the run's own sweep; what `config` does not say is taken from there.
        dimensions: of the activations: a dictionary of this size gets the same L1 under both.
        quiet: no progress.
    """
    own = coefficients(config, settings, dimensions)
    # Coefficients are spelled out in full, so that both sweeps hold exactly corresponding ones.
    l1 = {"plain": own, "per-size": [value * dimensions for value in own]}
    changes = {scale: {"l1": l1[scale], "l1_scale": scale} for scale in SCALES}
    minutes = config.minutes and config.minutes * SHARE
    base = _base(config, settings).changed(dataset=dataset, sizes=config.sizes, seeds=1)
    found = _train_each(run, config, base, changes, config.samples, minutes, quiet=quiet)
    return found["plain"], found["per-size"]


def _train_each(
    run: Run, config: ClaimsConfig, base: TrainDictsConfig, changes: Mapping[str, Mapping[str, Any]],
    samples: int | None, minutes: float | None, *, quiet: bool,
) -> dict[str, tuple[Run, Comparison]]:  # fmt: skip
    """Trains and compares a sweep for each of `changes`, by its folder's name; all on as many rows as the first."""
    samples, found = samples or (None if minutes else DEFAULT_SAMPLES), {}
    for name, change in changes.items():
        folder = Run(run.path / FOLDER / name)
        result = train_dicts(
            folder, base.changed(**change, samples=samples, minutes=minutes, threads=None), quiet=quiet
        )
        samples, minutes = result["samples"], None
        found[name] = (folder, compare_dicts(folder, CompareConfig(threshold=config.threshold), quiet=True))
    return found


def _base(config: ClaimsConfig, settings: dict[str, Any]) -> TrainDictsConfig:
    """What all sweeps beside the run's own take from it."""
    return _relu(settings).changed(
        hook=None, seed=config.seed, epochs=None, minutes=None, min_samples=config.min_samples,
        batch_size=config.batch_size, warmup_steps=config.warmup_steps,
    )  # fmt: skip


def _relu(settings: dict[str, Any]) -> TrainDictsConfig:
    """Those of the run's own sweep, for dictionaries with L1."""
    said = {name: value for name, value in settings.items() if name not in ("kind", *OF_KINDS)}
    return TrainDictsConfig.from_mapping(said, "train-dicts")


def check_memory(config: ClaimsConfig, settings: dict[str, Any], dimensions: int) -> None:
    """Raises InvalidSetting where either sweep needs more memory than there is."""
    l1 = coefficients(config, settings, dimensions)
    changed = _base(config, settings).changed(l1=l1, sizes=config.sizes, seeds=1)
    plan.refuse("claims", plan.need(changed, dimensions), dimensions)


def coefficients(config: ClaimsConfig, settings: dict[str, Any], dimensions: int) -> list[float]:
    """Undivided L1 coefficients: those of the settings, or steps around the middle one of the run's own sweep."""
    if config.l1 is not None:
        return parse_l1(config.l1)
    run_l1 = parse_l1(settings["l1"])
    middle = run_l1[len(run_l1) // 2] / (dimensions if settings["l1_scale"] == "per-size" else 1)
    return [float(f"{middle * step:.12g}") for step in STEPS]


def train_starts(
    run: Run, config: ClaimsConfig, dataset: str, settings: dict[str, Any], *, quiet: bool
) -> dict[str, tuple[Run, Comparison]]:
    """Trains and compares the sweeps; nothing where `config` asks for none.

    Args:
        run: the run that they lie in.
        config: how long.
        dataset: folder of the activations.
        settings: those of the run's own sweep.
        quiet: no progress.
    """
    if not config.starts:
        return {}
    base = _base(config, settings).changed(dataset=dataset)
    minutes = config.start_minutes and config.start_minutes * starts.SHARE
    changes = {f"start-{kind}": starts.STARTS[kind].settings for kind in starts.ORDER}
    found = _train_each(run, config, base, changes, config.start_samples, minutes, quiet=quiet)
    return {kind: found[f"start-{kind}"] for kind in starts.STARTS}
