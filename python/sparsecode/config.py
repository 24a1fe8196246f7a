"""Every setting of every stage, each on one line with its reason; presets and flags change them.

A setting's help text, its flag and its kind are its field's metadata: the command line is generated from here.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

from sparsecode.errors import InvalidSetting


def setting(default: Any, help: str, *, choices: tuple[str, ...] | None = None, affects_result: bool = True) -> Any:
    """A field of a stage's settings. `affects_result=False`: two runs that differ in it only are the same."""
    return field(default=default, metadata={"help": help, "choices": choices, "affects_result": affects_result})


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage's settings can do."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> Self:
        """Settings from names and values, checked.

        Args:
            values: names with `-` or `_`; lists become tuples.
            where: what to name in an error, such as a preset's file and table.

        Raises:
            InvalidSetting: an unknown name, or a value of the wrong type or outside its choices.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        clean: dict[str, Any] = {}
        for raw, value in values.items():
            name = raw.replace("-", "_")
            if name not in known:
                raise InvalidSetting(f"{where}: unknown setting '{raw}'; known: {', '.join(sorted(known))}")
            clean[name] = _checked(known[name], value, where)
        return cls(**clean)

    def changed(self, **values: Any) -> Self:
        """A copy with some settings changed, checked as `from_mapping` does."""
        current = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return type(self).from_mapping(current | values, "setting")

    def record(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values."""
        return {
            f.name: list(value) if isinstance(value := getattr(self, f.name), tuple) else value
            for f in dataclasses.fields(self)
            if f.metadata["affects_result"]
        }


def _checked(spec: dataclasses.Field[Any], value: Any, where: str) -> Any:
    kinds = [kind.strip() for kind in str(spec.type).split("|")]
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and "float" in kinds:
        value = float(value)
    allowed = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "tuple[str, ...]": tuple}
    fits = any(isinstance(value, allowed[kind]) and (kind == "bool" or not isinstance(value, bool)) for kind in kinds)
    if not fits:
        raise InvalidSetting(f"{where}: '{spec.name}' must be {spec.type}, not {value!r}")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise InvalidSetting(f"{where}: '{spec.name}' must be finite and at least 0, not {value!r}")
    choices = spec.metadata["choices"]
    if choices and value is not None and value not in choices:
        raise InvalidSetting(f"{where}: '{spec.name}' must be one of {', '.join(choices)}, not {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class TrainGptConfig(StageConfig):
    """Text, tokens and the transformer. Defaults: the seed experiment's shape (6 layers of 32, MLP 128)."""

    text: tuple[str, ...] = setting((), "Files, folders or globs of text; none: the Python sources installed here.")
    text_key: str = setting("text", "Key of the text in .jsonl and .parquet files.")
    hf_dataset: str | None = setting(None, "A Hugging Face dataset instead of files (needs sparsecode[hf]).")
    skip_bad: bool = setting(False, "Skip and count unreadable files instead of stopping.")
    max_text_mb: int | None = setting(None, "Use at most this many MB of text (a fixed choice of documents).")
    val_fraction: float = setting(0.02, "Share of documents held out for validation.")
    tokenizer: str | None = setting(None, "A tokenizer.json or a folder with GPT-2's encoder.json and vocab.bpe.")
    vocab_size: int = setting(4096, "Tokens in the byte-level BPE that is trained when no tokenizer is given.")
    n_layer: int = setting(6, "Transformer blocks.")
    n_head: int = setting(4, "Attention heads.")
    d_model: int = setting(32, "Width of the residual stream.")
    d_mlp: int | None = setting(None, "Width of the MLP's hidden layer; default 4 times d-model.")
    context: int = setting(256, "Tokens in a context.")
    batch_size: int = setting(32, "Contexts in a batch.")
    steps: int = setting(5000, "Most optimiser steps; fewer if --minutes ends first.")
    minutes: float | None = setting(None, "Plan the number of steps so that training takes about this long here.")
    lr: float = setting(6e-3, "Peak learning rate of AdamW; small models like large ones.")
    warmup_steps: int = setting(100, "Steps of linear warm-up.")
    final_lr_fraction: float = setting(0.1, "Learning rate at the end of the cosine, as a share of the peak.")
    weight_decay: float = setting(0.1, "AdamW's weight decay on matrices.")
    beta1: float = setting(0.9, "AdamW's decay of the mean gradient.")
    beta2: float = setting(0.95, "AdamW's decay of the mean squared gradient; nanoGPT's, for small batches.")
    grad_clip: float = setting(1.0, "Largest norm of the gradient.")
    val_tokens: int = setting(200_000, "Validation tokens, spread over the held-out documents.")
    log_every: int = setting(100, "Steps between metrics lines.", affects_result=False)
    val_every: int = setting(1000, "Steps between validations, each with a sample of text.", affects_result=False)
    save_every: int = setting(200, "Steps between saved states.", affects_result=False)
    seed: int = setting(0, "Seed of initialisation and of the order of contexts.")
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.")


SITES = ("mlp", "resid", "mlp_out", "attn")


@dataclass(frozen=True, kw_only=True)
class HarvestConfig(StageConfig):
    """Which activations to store. Defaults: the seed's hook point, MLP activations of layer 2 after the GELU."""

    layer: int = setting(2, "Layer to read, from 0.")
    site: str = setting("mlp", "mlp: after the nonlinearity; resid: after the block; mlp_out; attn.", choices=SITES)
    hook: str | None = setting(None, "A hook point by name, such as blocks.2.mlp.hook_post; beats --layer and --site.")
    rows: int = setting(6_000_000, "Rows (tokens) to store; a multiple of the context fits best.")
    dtype: str = setting("float16", "Type on disk.", choices=("float16", "bfloat16", "float32"))
    batch_size: int = setting(64, "Contexts in a forward pass; its shape decides the last bits of a row.")
    shard_mb: int = setting(256, "Size of a shard file in MB.")
    seed: int = setting(0, "Seed of the order in which contexts are read.")
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.", affects_result=False)


@dataclass(frozen=True, kw_only=True)
class TrainDictsConfig(StageConfig):
    """A sweep of dictionaries over sizes, L1 coefficients and seeds, trained together on the same batches."""

    # These two say where the data are; which data they are is in the dataset's fingerprint, an input of the stage.
    hook: str | None = setting(None, "Which harvested hook point to train on; needed where the run holds several.",
                               affects_result=False)  # fmt: skip
    dataset: str | None = setting(None, "Folder of a dataset to train on instead of one harvested in this run.",
                                  affects_result=False)  # fmt: skip
    sizes: str = setting("64-4096", "Sizes: 64-4096 (powers of two), 64,100,512, or 2x-32x (times the width).")
    l1: str = setting("2.3e-2", "L1 coefficients: one, several with commas, or 1e-4:1e-2:8 (8, log-spaced).")
    seeds: int = setting(1, "Dictionaries per size and L1, each from its own initialisation.")
    seed: int = setting(0, "First seed; also that of the order of rows.")
    samples: int | None = setting(None, "Rows to train on, over several epochs if need be; 8 million unless --minutes.")
    epochs: float | None = setting(None, "Passes over the dataset; beats --samples.")
    minutes: float | None = setting(None, "Train for about this long here; --samples or --epochs may end it earlier.")
    batch_size: int = setting(4096, "Rows in a batch.")
    lr: float = setting(3e-3, "Peak learning rate of Adam (the seed's 1e-3 went with batches of 256).")
    warmup_steps: int = setting(200, "Steps of linear warm-up; at most half of a known number of steps.")
    decay_fraction: float = setting(0.2, "Share of the steps, at the end, over which the rate falls to zero.")
    normalize: str = setting("rms", "rms: divide by the root mean square; center: also subtract the mean; none.",
                             choices=("rms", "center", "none"))  # fmt: skip
    mse: str = setting("mean", "Squared error averaged over dimensions (the seed) or summed (SAELens).",
                       choices=("mean", "sum"))  # fmt: skip
    l1_scale: str = setting("plain", "per-size divides L1 by the dictionary size: the artefact the seed explains.",
                            choices=("plain", "per-size"))  # fmt: skip
    tied: bool = setting(False, "Encoder and decoder share their weights.")
    pre_bias: bool = setting(False, "Learn a bias that is subtracted before encoding and added after decoding.")
    project_gradient: bool = setting(True, "Remove the gradient along each atom; off: only renormalise, as the seed.")
    eval_rows: int = setting(65_536, "Rows at the end, never trained on, for the final metrics; at most a quarter.")
    log_every: int = setting(100, "Steps between metrics lines.", affects_result=False)
    save_every: int = setting(1000, "Steps between saved states.", affects_result=False)
    engine: str = setting(
        "auto", "reference, cpu, gpu, one of the CPU engine's paths (amx, vnni, avx512, avx2, neon, scalar), or auto."
    )
    threads: int | None = setting(None, "Threads; default: all cores.", affects_result=False)
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(StageConfig):
    """How dictionaries are compared."""

    threshold: float = setting(0.9, "Cosine above which a feature counts as found again.")
    bins: int = setting(50, "Bins of the histograms of MCS, over 0 to 1.")
    absolute: bool = setting(False, "Ignore the sign of cosines.")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StageConfig):
    """What the report shows."""

    features: int = setting(12, "Recurring features whose top tokens are shown.")
    tokens: int = setting(12, "Top tokens per feature.")
    rows: int = setting(300_000, "Rows of the dataset that are searched for them.")


STAGES: dict[str, type[StageConfig]] = {
    "train-gpt": TrainGptConfig,
    "harvest": HarvestConfig,
    "train-dicts": TrainDictsConfig,
    "compare": CompareConfig,
    "report": ReportConfig,
}


@dataclass(frozen=True)
class Preset:
    """A named set of changes to the defaults: a TOML file with one table per stage."""

    name: str
    cost: str
    stages: Mapping[str, Mapping[str, Any]]

    def stage(self, name: str, **flags: Any) -> StageConfig:
        """Settings of one stage: defaults, then the preset, then the flags that are not None."""
        given = {key: value for key, value in flags.items() if value is not None}
        table = {key.replace("-", "_"): value for key, value in self.stages.get(name, {}).items()}
        config = STAGES[name].from_mapping(table, f"preset {self.name}, [{name}]")
        return config.changed(**given)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(entry.name[: -len(".toml")] for entry in _preset_folder().iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """Reads a preset by name, or from a path that ends in .toml.

    Raises:
        InvalidSetting: no such preset, not TOML, or unknown tables or settings.
    """
    if name.endswith(".toml"):
        source = Path(name)
        if not source.is_file():
            raise InvalidSetting(f"{name}: no such preset file; presets with a name: {', '.join(preset_names())}")
        text = source.read_text(errors="replace")
    elif name in preset_names():
        text = (_preset_folder() / f"{name}.toml").read_text()
    else:
        raise InvalidSetting(f"preset '{name}' is unknown; known: {', '.join(preset_names())}, or a path to a .toml")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"preset {name}: not valid TOML ({error})") from error
    cost = table.pop("cost", "")
    unknown = set(table) - set(STAGES)
    if unknown or not all(isinstance(inner, dict) for inner in table.values()):
        raise InvalidSetting(f"preset {name}: tables must be {', '.join(STAGES)}; found {', '.join(sorted(table))}")
    preset = Preset(name, str(cost), table)
    for stage in table:
        preset.stage(stage)
    return preset


def _preset_folder() -> Any:
    return resources.files("sparsecode") / "presets"
