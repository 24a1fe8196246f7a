"""Every setting of every stage, each on one line with its reason; presets and flags change them.

A setting's help text, its flag and its kind are its field's metadata: the command line is generated from here.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sparsecode.errors import InvalidSetting

T = TypeVar("T")

DEFAULT_PRESET = "default"


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    several: bool = False,
    affects_result: bool = True,
    remembered: bool = True,
    shown: str | None = None,
) -> Any:
    """A field of a stage's settings. `affects_result=False`: two runs that differ in it only are the same.

    `several`: a text may name several of the choices, with commas. `remembered=False`: said anew in every call, such as
    what fits the machine of that call; a run keeps all others. `shown`: the words for the default in `--help`, if it is
    not to show the value; empty: none.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "several": several,
        "affects_result": affects_result,
        "remembered": remembered,
        "shown": shown,
    }
    return field(default=default, metadata=metadata)


# How dictionaries begin, of a sweep and of toy models alike; see docs/recipe.md.
_start = partial(
    setting, "calibrated", "calibrated: a short encoder, biases with which every feature fires; atoms: "
    "encoder = atoms, biases 0; linear: as torch.nn.Linear has it, atoms orthogonal (the seed).",
    choices=("calibrated", "atoms", "linear"),
)  # fmt: skip
_encoder_norm = partial(
    setting, "auto", "Calibrated: norm of the encoder's rows; auto: cube root of the width by the size, at most 1."
)
_initial_density = partial(setting, "auto", "Calibrated: share of rows on which each feature fires first; auto: 0.05.")
_l1_warmup = partial(setting, 0.3, "Share of the steps, at the start, over which L1 rises from zero.")

# What says the same thing by another setting: where one is given it goes back to its default, unless given as well.
_REPLACES = {
    "text": ("hf_dataset",),
    "hf_dataset": ("text",),
    "steps": ("minutes",),
    "samples": ("epochs", "minutes"),
    "epochs": ("samples", "minutes"),
    "minutes": ("steps", "samples", "epochs"),
    "start_samples": ("start_minutes",),
    "start_minutes": ("start_samples",),
    "layer": ("hook", "module"),
    "site": ("hook", "module"),
    "module": ("hook",),
    "hook": ("dataset", "module"),
    "dataset": ("hook",),
}


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
            if name in clean:
                raise InvalidSetting(f"{where}: '{raw}' appears twice, with - and with _; keep one of them")
            clean[name] = _checked(known[name], value, where)
        return cls(**clean)

    def changed(self, **values: Any) -> Self:
        """A copy with some settings changed, checked as `from_mapping` does."""
        current = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return type(self).from_mapping(current | values, "setting")

    def asked(self, **values: Any) -> Self:
        """`changed`, for what a person asks for: a value also beats what says the same thing by another setting.

        None only unsets.
        """
        names = {f.name for f in dataclasses.fields(self)}
        replaced = {other for name, value in values.items() if value is not None for other in _REPLACES.get(name, ())}
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.name in replaced & names - values.keys()}
        return self.changed(**defaults, **values)

    def record(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values."""
        return {name: value for name, value in self._values().items() if self._metadata(name)["affects_result"]}

    def beside(self) -> dict[str, Any]:
        """The other settings that a run remembers, as JSON values; a folder by its full path."""
        left = self._values().keys() - self.record().keys()
        kept = {name: value for name, value in self._values().items() if name in left and self._remembers(name)}
        for name in _FOLDERS & kept.keys():
            if isinstance(kept[name], str) and Path(kept[name]).is_dir():
                kept[name] = str(Path(kept[name]).absolute())
        return kept

    def part(self, kind: type[T]) -> T:
        """The settings that a class of the library takes, by the names of its fields.

        Raises:
            InvalidSetting: a value that it refuses, by the name of its flag.
        """
        names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
        try:
            return kind(**{name: getattr(self, name) for name in names})
        except InvalidSetting as error:
            name, _, why = str(error).partition(" ")
            stage = next((stage for stage, own in STAGES.items() if own is type(self)), "")
            if name not in names or not stage:
                raise
            raise InvalidSetting(f"{stage}: --{name.replace('_', '-')} {why}") from error

    def _values(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def _metadata(self, name: str) -> Mapping[str, Any]:
        return type(self).__dataclass_fields__[name].metadata

    def _remembers(self, name: str) -> bool:
        return bool(self._metadata(name)["remembered"])

    @classmethod
    def recorded(cls, record: Mapping[str, Any], where: str) -> Self:
        """Settings from a stage's record in a run; what an older version did not record has its default.

        Raises:
            InvalidSetting: a value that this version does not take.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        values = dict(record.get("beside") or {}) | dict(record["settings"])
        return cls.from_mapping({name: value for name, value in values.items() if name in known}, where)


_FOLDERS = {"dataset", "model"}

_LISTS = ("sizes", "l1")  # texts of one number or several: from Python or a preset, one may be a number


def _checked(spec: dataclasses.Field[Any], value: Any, where: str) -> Any:
    kinds = [kind.strip() for kind in str(spec.type).split("|")]
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str) and kinds == ["tuple[str, ...]"]:
        value = (value,)  # one path, not its letters
    if isinstance(value, int | float) and not isinstance(value, bool) and spec.name in _LISTS:
        value = repr(value)
    if isinstance(value, int) and not isinstance(value, bool) and "float" in kinds:
        value = float(value)
    allowed = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "tuple[str, ...]": tuple}
    fits = any(isinstance(value, allowed[kind]) and (kind == "bool" or not isinstance(value, bool)) for kind in kinds)
    if isinstance(value, tuple):
        fits = fits and all(isinstance(one, str) for one in value)
    if not fits:
        raise InvalidSetting(f"{where}: '{spec.name}' must be {spec.type}, not {value!r}")
    if value == "":
        raise InvalidSetting(f"{where}: '{spec.name}' is empty; leave it out, or say what it is")
    if isinstance(value, tuple) and "" in value:
        raise InvalidSetting(f"{where}: '{spec.name}' holds an empty name; it would be the folder you are in")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise InvalidSetting(f"{where}: '{spec.name}' must be finite and at least 0, not {value!r}")
    choices = spec.metadata["choices"]
    if choices and value is not None:
        for one in value.split(",") if spec.metadata["several"] else [value]:
            if one not in choices:
                raise InvalidSetting(f"{where}: '{spec.name}' must be one of {', '.join(choices)}, not {one!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class TrainGptConfig(StageConfig):
    """Text, tokens and the transformer. Defaults: the seed experiment's shape (6 layers of 32, MLP 128)."""

    text: tuple[str, ...] = setting((), "Files, folders or globs of text; none: the Python sources installed here.")
    text_key: str = setting("text", "Key or column of the text in tables (JSON, CSV, parquet, arrow); input_ids for "
                            "ids that the tokenizer made.")  # fmt: skip
    hf_dataset: str | None = setting(None, "A Hugging Face dataset instead of files (needs sparsecode[hf]).")
    hf_stream: bool = setting(
        False, "Read the first --max-text-mb of --hf-dataset as a stream, without downloading all."
    )
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
    min_tokens: int = setting(0, "Train on at least this many tokens, however few --minutes allow; at most --steps.")
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


@dataclass(frozen=True, kw_only=True)
class TextConfig(StageConfig):
    """Text to run a third-party model on. Same names as in `HarvestConfig`."""

    text: tuple[str, ...] = setting((), "Files, folders or globs of text.")
    text_key: str = setting("text", "Key of the text in tables.")
    hf_dataset: str | None = setting(None, "A Hugging Face dataset.")
    hf_stream: bool = setting(False, "Read its beginning as a stream.")
    skip_bad: bool = setting(False, "Skip unreadable files.")
    max_text_mb: int | None = setting(None, "Most MB of text.")
    chat: bool = setting(False, "Conversations, written by the model's chat template.")
    control_tokens: str = setting("auto", "Which control tokens are read in the text.")

    def record(self) -> dict[str, Any]:
        """Without what runs of earlier versions do not record, where it is as they had it."""
        default = {"hf_stream": False, "chat": False, "control_tokens": "auto"}
        return {name: value for name, value in super().record().items() if default.get(name, ...) != value}


SITES = ("mlp", "resid", "mlp_out", "attn", "attn_out", "resid_pre", "resid_mid")


@dataclass(frozen=True, kw_only=True)
class HarvestConfig(StageConfig):
    """Which activations to store. Defaults: the seed's hook point, MLP activations of layer 2 after the GELU."""

    layer: int | str = setting(2, "Layers to read, from 0: one, or several as 0,2,4 or 0-5.")
    site: str = setting("mlp", "mlp: after the nonlinearity; resid: after the block; others as their names say; "
                        "several with commas.", choices=SITES, several=True)  # fmt: skip
    hook: str | None = setting(None, "Hook points by name, such as blocks.2.mlp.hook_post, several with commas; beats "
                               "--layer and --site.")  # fmt: skip
    module: tuple[str, ...] = setting((), "Modules by path instead: PATH for what they give, PATH@input for what they "
                                      "are given.")  # fmt: skip
    rows: int = setting(6_000_000, "Rows (tokens) to store; a multiple of the context fits best.")
    dtype: str = setting("float16", "Type on disk.", choices=("float16", "bfloat16", "float32"))
    batch_size: int = setting(64, "Contexts in a forward pass; its shape decides the last bits of a row.")
    shard_mb: int = setting(256, "Size of a shard file in MB.")
    seed: int = setting(0, "Seed of the order in which contexts are read.")
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.", affects_result=False,
                          remembered=False)  # fmt: skip
    # Which model and which text these are is in their fingerprints, inputs of the stage.
    model: str | None = setting(None, "A model instead of the run's own: a folder or a name of Hugging Face's (needs "
                                "sparsecode[hf]), or a folder that convert wrote.", affects_result=False)  # fmt: skip
    model_dtype: str = setting("auto", "Type the --model computes in; auto: the one it was saved in, or float32 where "
                               "the processor would emulate that.",
                               choices=("auto", "float32", "bfloat16", "float16"))  # fmt: skip
    context: int | None = setting(None, "With --model: tokens in a context; default 256, or the most it takes.")
    batch_tokens: int = setting(16_384, "With --model: tokens in a forward pass, padding included.")
    documents: bool = setting(False, "With --model: never two documents in a context; short ones are padded.")
    special_tokens: bool = setting(False, "With --model: store the rows of special tokens too.")
    # The run keeps its text as tokens: without these it is read again from there.
    text: tuple[str, ...] = setting((), "With --model: files, folders or globs of text; none: the Python sources "
                                    "installed here.", affects_result=False, remembered=False)  # fmt: skip
    text_key: str = setting("text", "Key or column of the text in tables (JSON, CSV, parquet, arrow); input_ids for "
                            "ids that the tokenizer made.", affects_result=False, remembered=False)  # fmt: skip
    hf_dataset: str | None = setting(None, "With --model: a Hugging Face dataset instead of files.",
                                     affects_result=False, remembered=False)  # fmt: skip
    hf_stream: bool = setting(False, "Read the first --max-text-mb of --hf-dataset as a stream, without downloading "
                              "all.", affects_result=False, remembered=False)  # fmt: skip
    skip_bad: bool = setting(False, "Skip and count unreadable files instead of stopping.", affects_result=False,
                             remembered=False)  # fmt: skip
    max_text_mb: int | None = setting(None, "Use at most this many MB of text (a fixed choice of documents).",
                                      affects_result=False, remembered=False)  # fmt: skip
    chat: bool = setting(False, "With --model: conversations (messages with role and content, in tables) instead of "
                         "text, as the model's own chat template writes them.")  # fmt: skip
    control_tokens: str = setting("auto", "With --model: control tokens to read where the text spells them: all, none, "
                                  "names with commas, or auto: all where the model has a chat template.",
                                  affects_result=False, remembered=False)  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Without what has no meaning: the one half of the settings with a model, the other without."""
        other = ("batch_size",) if self.model is not None else _WITH_MODEL
        if not self.chat:
            other = (*other, "chat")  # as earlier versions record it
        return {name: value for name, value in super().record().items() if name not in other}


_WITH_MODEL = ("module", "model_dtype", "context", "batch_tokens", "documents", "special_tokens", "chat")


@dataclass(frozen=True, kw_only=True)
class TrainDictsConfig(StageConfig):
    """A sweep of dictionaries over sizes, L1 coefficients and seeds, trained together on the same batches."""

    # These two say where the data are; which data they are is in the dataset's fingerprint, an input of the stage.
    hook: str | None = setting(None, "Which harvested hook point to train on; needed where the run holds several.",
                               affects_result=False)  # fmt: skip
    dataset: str | None = setting(None, "Folder of a dataset to train on instead of one harvested in this run.",
                                  affects_result=False)  # fmt: skip
    sizes: str = setting("64-4096", "Sizes: 64-4096 (powers of two), 64,100,512, or 2x-32x (times the width).")
    l1: str = setting("1.4e-2", "L1 coefficients: one, several with commas, or 1e-4:1e-2:8 (8, log-spaced).")
    seeds: int = setting(1, "Dictionaries per size and L1, each from its own initialisation.")
    seed: int = setting(0, "First seed; also that of the order of rows.")
    samples: int | None = setting(None, "Rows to train on, over several epochs if need be; 8 million unless --minutes.")
    epochs: float | None = setting(None, "Passes over the dataset; beats --samples.")
    minutes: float | None = setting(None, "Train for about this long here; --samples or --epochs may end it earlier.")
    min_samples: int = setting(0, "Train on at least this many rows, however few --minutes allow; at most --samples.")
    batch_size: int = setting(4096, "Rows in a batch.")
    lr: float = setting(8e-3, "Peak learning rate of Adam (the seed's 1e-3 went with batches of 256).")
    lr_scaling: str = setting("sqrt", "sqrt: --lr is that of 1,024 features and falls with the root of the size; none: "
                              "every size has --lr.", choices=("sqrt", "none"))  # fmt: skip
    warmup_steps: int = setting(200, "Steps of linear warm-up; at most half of a known number of steps.")
    decay_fraction: float = setting(0.2, "Share of the steps, at the end, over which the rate falls to zero.")
    start: str = _start()
    encoder_norm: str = _encoder_norm()
    initial_density: str = _initial_density()
    l1_warmup: float = _l1_warmup()
    normalize: str = setting("center", "center: subtract the mean, divide by the standard deviation; rms: divide by "
                             "the root mean square; none.", choices=("rms", "center", "none"))  # fmt: skip
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
        "auto",
        "reference, cpu, gpu, one of the CPU engine's paths (amx, vnni, avx512, avxvnni, avx2, neon, scalar), or auto.",
    )
    threads: int | None = setting(None, "Threads; default: all cores.", affects_result=False, remembered=False)
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(StageConfig):
    """How dictionaries are compared."""

    threshold: float = setting(0.9, "Cosine above which a feature counts as found again.")
    duplicate_threshold: float = setting(0.8, "Cosine with another atom of its own dictionary above which a feature "
                                         "counts as a near-duplicate.")  # fmt: skip
    bins: int = setting(50, "Bins of the histograms of MCS, over 0 to 1.")
    absolute: bool = setting(False, "Ignore the sign of cosines.")


@dataclass(frozen=True, kw_only=True)
class ClaimsConfig(StageConfig):
    """How the seed's claims are tested: a sweep over size and L1 under both normalisations, and how much is read."""

    dataset: str | None = setting(None, "Folder of the activations, where they are not in this run.",
                                  affects_result=False)  # fmt: skip
    sweep: bool = setting(True, "Train the sweep over size and L1 under both normalisations (claim 4).")
    sizes: str = setting("0.25x-4x", "Its sizes; x: times the width of the activations.")
    l1: str | None = setting(None, "Its L1 coefficients; none: 1/2, 1, 2 and 4 times that of train-dicts.")
    samples: int | None = setting(None, "Rows to train each of the two on; 2 million unless --minutes.")
    minutes: float | None = setting(None, "Train both for about this long in all.")
    min_samples: int = setting(0, "Train each on at least this many rows, however few --minutes allow.")
    batch_size: int = setting(512, "Rows in their batches; small ones learn most from few rows.")
    warmup_steps: int = setting(200, "Steps of their warm-up; at most half of a known number of steps.")
    starts: bool = setting(True, "Train the run's sweep from every start on fewer rows, to compare them.")
    start_samples: int | None = setting(None, "Rows to train each of these on; 2 million unless --start-minutes.")
    start_minutes: float | None = setting(None, "Train them for about this long in all.")
    threshold: float = setting(0.9, "Cosine above which their features count as found again.")
    rows: int | None = setting(None, "Rows searched for the strongest contexts; none: all.")
    directions: int = setting(48, "Features, neurons and random directions whose contexts are compared.")
    contexts: int = setting(20, "Strongest distinct contexts looked at for each.")
    features: int = setting(12, "Features whose contexts are kept as text.")
    shown: int = setting(12, "Contexts kept as text for each.")
    draws: int = setting(1000, "Resamples of a bootstrap interval.")
    seed: int = setting(0, "Seed of the sweep, of random directions and of resampling.")


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(StageConfig):
    """Dictionaries that nobody trained sparsely: neurons, PCA, ICA, NMF, random directions."""

    # Which data they are is in the dataset's fingerprint, an input of the stage.
    hook: str | None = setting(None, "Which harvested hook point; needed where the run holds several.",
                               affects_result=False)  # fmt: skip
    dataset: str | None = setting(None, "Folder of a dataset instead of one harvested in this run.",
                                  affects_result=False)  # fmt: skip
    kinds: str = setting("neurons,identity,random,pca,ica,nmf", "Which ones, separated by commas.")
    rows: int = setting(65_536, "Rows to fit on, drawn from those that dictionaries train on.")
    iterative_rows: int = setting(16_384, "Of these, rows for ICA and NMF, whose every iteration reads all of them.")
    ica_iterations: int = setting(100, "Most iterations of FastICA; the file says whether it had converged.")
    nmf_iterations: int = setting(20, "Most iterations of NMF.")
    eval_rows: int = setting(65_536, "Rows at the end for the metrics; the trained dictionaries' where there are any.")
    curve_rows: int = setting(8_192, "Of these, rows for the curves of FVU over the number of codes kept.")
    threshold: float = setting(0.9, "Cosine above which a feature counts as found again.")
    seed: int = setting(0, "Seed of the rows, of the random directions and of the fits.")


@dataclass(frozen=True, kw_only=True)
class ToyConfig(StageConfig):
    """Toy data whose true features are known, and a sweep of dictionaries over them. The data are the seed's."""

    dim: int = setting(256, "Dimensions of the space.")
    true_features: int = setting(512, "True features.")
    active: float = setting(5.0, "Expected number of active features in a row.")
    draw_rows: int = setting(256, "Rows that share one draw of the correlated probabilities: the seed's batch.")
    sizes: str = setting("0.125x-4x", "Sizes: 0.125x-4x (times the true features), 64-2048 or 64,100.")
    l1: str = setting("1e-4:1.6e-3:5", "L1 coefficients: one, several with commas, or 1e-4:1.6e-3:5 (5, log-spaced).")
    seeds: int = setting(1, "Dictionaries per size and L1, each from its own initialisation.")
    seed: int = setting(0, "First seed; also that of the true features and of the data.")
    steps: int = setting(20_000, "Most optimiser steps, the seed's number; fewer if --minutes ends first.")
    minutes: float | None = setting(None, "Plan the number of steps so that training takes about this long here.")
    min_steps: int = setting(0, "Train for at least this many steps, however few --minutes allow; at most --steps.")
    batch_size: int = setting(512, "Rows in a batch: a multiple of --draw-rows.")
    lr: float = setting(1e-2, "Peak learning rate of Adam (the seed's 1e-3 needs ten times the steps).")
    warmup_steps: int = setting(50, "Steps of linear warm-up.")
    decay_fraction: float = setting(0.3, "Share of the steps, at the end, over which the rate falls to zero.")
    start: str = _start()
    encoder_norm: str = _encoder_norm()
    initial_density: str = _initial_density()
    l1_warmup: float = _l1_warmup()
    l1_scale: str = setting("plain", "per-size divides L1 by the dictionary size, as the seed's toy script does.",
                            choices=("plain", "per-size"))  # fmt: skip
    project_gradient: bool = setting(True, "Remove the gradient along each atom; off: only renormalise, as the seed.")
    eval_rows: int = setting(16_384, "Fresh rows for the final metrics; a feature is dead if it fires on none.")
    threshold: float = setting(0.9, "Cosine above which a true feature counts as recovered.")
    save_dictionaries: bool = setting(False, "Keep every dictionary, in toy/dictionaries.")
    log_every: int = setting(500, "Steps between metrics lines.", affects_result=False)
    save_every: int = setting(2000, "Steps between saved states.", affects_result=False)
    engine: str = setting("auto", "The engine that trains, named as in train-dicts.")
    threads: int | None = setting(None, "Threads; default: all cores.", affects_result=False, remembered=False)
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StageConfig):
    """What the report shows."""

    features: int = setting(12, "Most features whose strongest contexts are shown, of those that `claims` found.")
    tokens: int = setting(12, "Most contexts per feature.")
    images: bool = setting(True, "Write each figure as PNG as well; needs chromium on PATH.")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(StageConfig):
    """Over which positions of which model dictionaries are evaluated. Recorded nowhere: nothing is written."""

    model: str | None = setting(None, "Folder or name of the model; without it, the run's own GPT.")
    model_dtype: str = setting("auto", "Type the model computes in.",
                               choices=("auto", "float32", "bfloat16", "float16"),
                               shown="auto, the one it was saved in, or float32 where that is emulated")  # fmt: skip
    hook: str | None = setting(None, "Hook point or module, where a dictionary does not say its own.")
    rows: int = setting(16_000, "Positions to evaluate on.", shown="16k")
    context: int | None = setting(None, "Tokens in a context.", shown="as harvested")
    documents: bool | None = setting(None, "One document per context.", shown="as harvested")
    special_tokens: bool | None = setting(None, "Special tokens count too.", shown="as harvested")
    batch_tokens: int | None = setting(None, "Tokens in a forward pass.", shown="as fits")
    text: tuple[str, ...] = setting((), "Text to read instead of the run's held-out text.")
    text_key: str = setting("text", "With --text: key of the text in tables.")
    chat: bool | None = setting(None, "With --model and --text: conversations instead of text, as the model's own chat "
                                "template writes them.")  # fmt: skip
    control_tokens: str = setting("auto", "With --model and --text: control tokens to read where the text spells them: "
                                  "all, none, names with commas, or auto: all where the model has a chat template.",
                                  shown="auto")  # fmt: skip
    seed: int = setting(0, "Which tokens a masked model is asked for.", shown="")
    device: str = setting("auto", "cpu, cuda, mps, or auto: the fastest here.", shown="")


STAGES: dict[str, type[StageConfig]] = {
    "train-gpt": TrainGptConfig,
    "harvest": HarvestConfig,
    "train-dicts": TrainDictsConfig,
    "compare": CompareConfig,
    "claims": ClaimsConfig,
    "baselines": BaselinesConfig,
    "toy": ToyConfig,
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
        config = STAGES[name].from_mapping(self.stages.get(name, {}), f"preset {self.name}, [{name}]")
        return config.changed(**given)

    def record(self) -> dict[str, Any]:
        """What a run remembers of it: its contents too, since a file may change or go."""
        tables = {stage: {name: list(v) if isinstance(v, tuple) else v for name, v in table.items()}
                  for stage, table in self.stages.items()}  # fmt: skip
        return {"name": self.name, "stages": tables}


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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidSetting(f"preset {name}: not valid TOML ({error})") from error
    cost = table.pop("cost", "")
    unknown = set(table) - set(STAGES)
    if unknown or not all(isinstance(inner, dict) for inner in table.values()):
        raise InvalidSetting(f"preset {name}: tables must be {', '.join(STAGES)}; found {', '.join(sorted(table))}")
    preset = Preset(name, str(cost), table)
    for stage in table:
        preset.stage(stage)
    return preset


def _preset_folder() -> Path:
    return Path(__file__).with_name("presets")  # importlib.resources would take a tenth of the time of a --help
