"""From the settings of `train-dicts` to what is done: which data, which sweep, how many steps. Checked here.

What makes and measures a sweep takes the settings of `toy` as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sparsecode import store
from sparsecode.comparison.members import fingerprint, member_of, places
from sparsecode.errors import DatasetUnfit, InvalidSetting, LeftOut, StageMissing
from sparsecode.interop import load_found
from sparsecode.machine import memory as machine_memory
from sparsecode.machine import torch_device
from sparsecode.pipeline.advice import advice
from sparsecode.pipeline.config import ToyConfig, TrainDictsConfig
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.settings import SEEDS
from sparsecode.sweep import kinds, memory
from sparsecode.sweep.batches import Order, rows_held_out
from sparsecode.sweep.fitting import DEFAULT_SAMPLES
from sparsecode.sweep.initial import Given
from sparsecode.sweep.kinds import KindSpec
from sparsecode.sweep.normalization import Normalization
from sparsecode.sweep.settings import LossSettings, parse_l1, parse_sizes, rates
from sparsecode.sweep.split import Split
from sparsecode.sweep.spread import owners
from sparsecode.sweep.start import Start
from sparsecode.sweep.sweep import Sweep
from sparsecode.world import ALONE, World

Swept = TrainDictsConfig | ToyConfig
Entries = list[tuple[int, KindSpec, int]]  # size, kind and seed of each dictionary


@dataclass(frozen=True)
class Data:
    """What dictionaries are trained on: a dataset, or several with rows of the same tokens.

    Attributes:
        datasets: those that are read, side by side; of transcoders the one that is written comes last.
        target: whether there is such a one.
    """

    datasets: tuple[store.Dataset, ...]
    target: bool = False

    @property
    def first(self) -> store.Dataset:
        """The one that all others are like."""
        return self.datasets[0]

    @property
    def read(self) -> tuple[store.Dataset, ...]:
        """Those that are read."""
        return self.datasets[: len(self.datasets) - self.target]

    @property
    def written(self) -> tuple[store.Dataset, ...]:
        """Those whose rows are reconstructed."""
        return self.datasets[-1:] if self.target else self.datasets

    @property
    def width(self) -> int:
        """Dimensions that are read."""
        return sum(dataset.activation_dim for dataset in self.read)

    @property
    def target_width(self) -> int:
        """Dimensions that transcoders write; 0 for others."""
        return self.written[0].activation_dim if self.target else 0

    @property
    def hooks(self) -> list[str]:
        """The hook point of each dataset."""
        return [str(dataset.provenance.get("hook_point", "")) for dataset in self.datasets]

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Fingerprints by name, as a stage records them."""
        names = ["dataset", *(f"dataset/{hook}" for hook in self.hooks[1 : len(self.read)]), "target"]
        return {name: dataset.fingerprint for name, dataset in zip(names, self.datasets, strict=False)}

    @property
    def about(self) -> dict[str, Any]:
        """What the files of dictionaries say of it."""
        several = hashlib.sha256("\n".join(map(" ".join, self.inputs.items())).encode()).hexdigest()[:32]
        found: dict[str, Any] = {
            "hook_point": " + ".join(self.hooks[: len(self.read)]),
            "dataset_fingerprint": self.first.fingerprint if len(self.datasets) == 1 else several,
        }
        found |= {"layers": self.hooks[: len(self.read)]} if len(self.read) > 1 else {}
        return found | ({"hook_point_out": self.hooks[-1]} if self.target else {})


def check(config: TrainDictsConfig, data: Data) -> None:
    """Finds everything that cannot be used before a stage is recorded as begun.

    Raises:
        InvalidSetting: sizes, kinds or a start that cannot be read, or a batch that does not fit.
        DatasetUnfit: not finished, too few rows, or all the same.
        SettingsDiffer: datasets whose rows are not of the same tokens.
    """
    if config.order == "windowed" and len(data.datasets) > 1:
        raise InvalidSetting("train-dicts: --order windowed takes one dataset; several would come in different orders")
    for dataset in data.datasets:
        if not dataset.complete:
            raise DatasetUnfit(f"{dataset.path}: its writer has not finished; run the command that writes it again")
    start(config)
    batch, there = config.batch_size * (data.width + data.target_width) * 4, machine_memory()
    if there is not None and batch > there:
        raise InvalidSetting(
            f"train-dicts: --batch-size {config.batch_size} takes {batch / 1e9:,.0f} GB of memory; this machine has "
            f"{there / 1e9:.0f}; 1024 to 8192 rows are usual"
        )
    every = entries(config, data.width)
    if data.target and (config.tied or any(kind.aux for _, kind, _ in every)):
        raise InvalidSetting("train-dicts: with --target there are no tied weights, and no loss of dead features (aux)")
    if config.split > (config.segments or config.split):
        raise InvalidSetting(f"train-dicts: --segments {config.segments} are too few for --split {config.split}")
    for name, number in (("segments", config.segments or 1), ("split", config.split)):
        if number & (number - 1):
            raise InvalidSetting(f"train-dicts: --{name} must be a power of two, not {number}")
    if config.skip and not data.target:
        raise InvalidSetting("train-dicts: --skip is for transcoders; add --target, what they write")
    if len(data.datasets) > 1:
        store.check_aligned(data.datasets)
    steps = known_steps(config, data.first.rows - held_out(config, data.first))
    if steps is not None and config.minutes is None:
        for _, kind, _ in every:
            kind.annealing(steps)
    for dataset in data.datasets:
        normalization(config, dataset)


def find_data(run: Run, config: TrainDictsConfig) -> Data:
    """The datasets named, or those of hook points harvested in the run.

    Raises:
        StageMissing, InvalidSetting: see `find_dataset`.
    """
    several = config.hook.split(",") if config.hook and config.dataset is None else [config.hook]
    folders = [find_dataset(run, config.changed(hook=hook)) for hook in several]
    if config.target is not None:
        folders.append(Path(config.target) if config.dataset is not None else _harvested(run, config.target))
    return Data(tuple(map(store.Dataset, folders)), config.target is not None)


def find_dataset(run: Run, config: TrainDictsConfig) -> Path:
    """The dataset's folder: the one named, or the hook point harvested in the run.

    Raises:
        StageMissing: nothing was harvested.
        InvalidSetting: several hook points were, beside the target, and none is named.
    """
    if config.dataset is not None:
        return Path(config.dataset)
    hook = config.hook
    if hook is None:
        prefix = "harvest/"
        hooks = [key[len(prefix) :] for key in run.config()["stages"] if key.startswith(prefix)]
        hooks = [one for one in hooks if one != config.target] or hooks
        if not hooks:
            raise StageMissing(f"{run.path}: harvest was not run; run: sparsecode harvest{run.flag}")
        if len(hooks) > 1:
            raise InvalidSetting(
                f"{run.path}: several hook points were harvested; add --hook, one of {', '.join(hooks)}"
            )
        hook = hooks[0]
    return _harvested(run, hook)


def _harvested(run: Run, hook: str) -> Path:
    """The folder of a hook point in the run. Raises StageMissing where it is not there."""
    command = f"sparsecode harvest --hook {hook}"
    run.finished(f"harvest/{hook}", command)
    folder = Path(run.activations_path / hook)
    if not (folder / "manifest.json").exists():
        raise StageMissing(f"{folder}: the dataset is gone; run: {command}{run.flag}")
    return folder


def build_sweep(
    config: Swept,
    every: Entries,
    width: int,
    device: torch.device,
    world: World = ALONE,
    *,
    target_width: int = 0,
    given: Given | None = None,
    split: Split | None = None,
) -> Sweep:
    """This process's part of a sweep before `start` has set encoders and biases.

    `target_width` is of transcoders, `given` are atoms to begin near, `split` says how dictionaries are cut.
    """
    sizes, kinds, seeds = zip(*share(every, world, 1 if split is None else split.team.size), strict=True)
    loss, orthogonal = config.part(LossSettings), start(config).orthogonal
    lr = rates(config.lr, sizes, config.lr_scaling if isinstance(config, TrainDictsConfig) else "none")
    return Sweep(
        width + target_width, sizes, kinds, seeds, lr, loss, inputs=width if target_width else None, device=device,
        orthogonal=orthogonal, given=given, together=[size for size, _, _ in every], split=split,
    )  # fmt: skip


def given(config: TrainDictsConfig, data: Data) -> Given | None:
    """The atoms that the sweep is to begin near; None where it begins with random ones.

    Raises:
        InvalidSetting: no single dictionary is there, it is of other activations, or transcoders are trained.
        DictionaryInvalid, NotRecognised: it cannot be read.
    """
    if config.init is None:
        return None
    if data.target:
        raise InvalidSetting("train-dicts: --init gives atoms of what is read, and transcoders write something else")
    found = places([config.init], LeftOut(None))
    if len(found) != 1:
        raise InvalidSetting(f"train-dicts: --init {config.init} holds {len(found)} dictionaries; name one of them")
    member = member_of(load_found(found[0]), config.init)
    if member.atoms.shape[1] != data.width:
        raise InvalidSetting(
            f"train-dicts: --init {config.init}: its atoms have {member.atoms.shape[1]} dimensions, the activations "
            f"{data.width}"
        )
    return Given(member.atoms, config.init_jitter, fingerprint(found[0].path))


def start(config: Swept) -> Start:
    """How the dictionaries begin.

    Raises:
        InvalidSetting: settings of the start that cannot be used.
    """
    return Start.parse(config.start, config.encoder_norm, config.initial_density, config.whitening)


def entries(config: Swept, width: int) -> Entries:
    """Every (size, kind, seed) of the sweep, sizes outermost; `2x` is twice the width, or the number of true features.

    Raises:
        InvalidSetting: sizes or kinds cannot be read or do not go together, or there are fewer seeds than that.
    """
    if config.seed + config.seeds > SEEDS:
        raise InvalidSetting(f"{config.stage}: --seed {config.seed} leaves fewer than {config.seeds} below 2^64")
    unit = config.true_features if isinstance(config, ToyConfig) else width
    seeds = list(range(config.seed, config.seed + config.seeds))
    return kinds.entries(parse_sizes(config.sizes, unit), kinds_of(config), seeds)


def share(every: Entries, world: World, split: int = 1) -> Entries:
    """Those entries of a sweep that this one of the processes trains, or has a part of where `split` share each.

    Raises:
        InvalidSetting: there are more processes than dictionaries, or they do not divide into teams.
    """
    teams, rest = divmod(world.size, split)
    if rest or not teams:
        raise InvalidSetting(f"train-dicts: {world.size} processes for --split {split}; start a multiple of {split}")
    if teams > len(every):
        raise InvalidSetting(f"train-dicts: {world.size} processes for {len(every)} dictionaries; start fewer")
    ranks = owners([size for size, _, _ in every], teams)
    return [entry for entry, rank in zip(every, ranks, strict=True) if rank == world.rank // split]


def segments(config: TrainDictsConfig, planned: Mapping[str, Any]) -> int:
    """Into how many segments dictionaries are cut; a stage that was begun keeps that of its plan."""
    if planned:
        return int(planned.get("segments", 1))
    return config.segments or (1 if config.split == 1 else max(8, config.split))


def order(config: TrainDictsConfig, dataset: store.Dataset, planned: Mapping[str, Any]) -> Order:
    """The order of rows; a stage that was begun keeps that of its plan, and one of an older version is exact."""
    chosen = planned.get("order", "exact") if planned else config.order
    if chosen == "auto":
        there = machine_memory()
        size = dataset.rows * dataset.activation_dim * (4 if dataset.dtype == "float32" else 2)
        chosen = "windowed" if there is not None and size > there / 2 else "exact"
    return "windowed" if chosen == "windowed" else "exact"


def kinds_of(config: Swept) -> list[KindSpec]:
    """The kinds of dictionaries that are trained.

    Raises:
        InvalidSetting: one cannot be read, or does not know a setting that it is given.
    """
    l1 = parse_l1(config.l1)
    return kinds.kinds_of((), l1) if isinstance(config, ToyConfig) else kinds.kinds_of(config.kind, l1, config.of_kinds)


def normalization(config: TrainDictsConfig, dataset: store.Dataset) -> Normalization:
    """From the dataset's statistics, which are over all its rows.

    Raises:
        DatasetUnfit: all rows are the same, or zero.
    """
    with advice("harvest another hook point", DatasetUnfit):
        return Normalization.of(dataset.statistics, config.normalize, dataset.path)


def held_out(config: TrainDictsConfig, dataset: store.Dataset) -> int:
    """Rows kept for the final metrics: as many as asked for, but at most a quarter of the dataset.

    Raises:
        DatasetUnfit: too few rows to split.
    """
    count = rows_held_out(config.eval_rows, dataset.rows)
    if count < 1:
        raise DatasetUnfit(f"{dataset.path}: {dataset.rows} rows are too few to train on; harvest more (--rows)")
    return count


def known_steps(config: TrainDictsConfig, train_rows: int) -> int | None:
    """Steps that --epochs or --samples ask for; None where only --minutes decides."""
    if config.epochs is not None:
        return max(1, round(config.epochs * train_rows / config.batch_size))
    if config.samples is None and config.minutes is not None:
        return None
    return max(1, (config.samples or DEFAULT_SAMPLES) // config.batch_size)


def need(config: Swept, width: int, world: World = ALONE, *, target_width: int = 0) -> memory.Need:
    """What the sweep of these settings needs, in this one of the processes that train it.

    Raises:
        InvalidSetting: sizes, coefficients or the device cannot be used.
    """
    split = config.split if isinstance(config, TrainDictsConfig) else 1
    sizes, several, _ = zip(*share(entries(config, width), world, split), strict=True)
    sizes = tuple(-(-size // split) for size in sizes)
    where, loss = torch_device(config.device).type, config.part(LossSettings)
    return memory.need_of(
        sizes, width + target_width, batch=config.batch_size,
        engine=memory.engine_kind(config.engine, where, several), tied=loss.tied, pre_bias=loss.pre_bias,
        threads=config.threads, device=where, kinds=several,
    )  # fmt: skip


def refuse(command: str, found: memory.Need, dim: int) -> None:
    """Refuses what needs more memory than there is, for a command. Raises InvalidSetting."""
    with advice("take fewer or smaller --sizes, --l1 or --seeds", InvalidSetting):
        memory.refuse(command, found, dim)
