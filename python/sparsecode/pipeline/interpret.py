"""The interpret stage: explanations of features beside those of neurons, PCA, random directions and an untrained model.

RUN/interpret/interpretations.json    groups with means and intervals, the verdict, every direction with its explanation
RUN/interpret/directions.csv          a line per direction
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsecode import store
from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison import Comparison
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import files_of
from sparsecode.errors import NotExpressible, SparsecodeError, StageMissing
from sparsecode.gpt import load_gpt
from sparsecode.interop import find_format, load_dictionary
from sparsecode.interpretation.control import Control
from sparsecode.interpretation.groups import CONTROL, Chosen, add_baselines, feature_groups
from sparsecode.interpretation.interpreting import EXAMPLES, InterpretSettings, interpret
from sparsecode.interpretation.vocabulary import Vocabulary
from sparsecode.machine import versions
from sparsecode.pipeline import plan
from sparsecode.pipeline.advice import advised, told
from sparsecode.pipeline.baselines import load_baselines
from sparsecode.pipeline.claims import dataset_path, fingerprint_of_dataset, load_claims
from sparsecode.pipeline.compare import load_comparison
from sparsecode.pipeline.config import InterpretConfig, TrainDictsConfig
from sparsecode.pipeline.model_text import tokens_of
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import INTERPRETED, digest, optional_digests, require
from sparsecode.science.claims.c3_interpretability import beside
from sparsecode.science.claims.evidence import ComparedSweep
from sparsecode.sweep.settings import LossSettings
from sparsecode.watch import Watch

KEY = "interpret"
FORMAT = 1
NEURONS, CHANCE = "neurons", "random direction"  # names of what stands beside features in claim 3


@advised
def interpret_directions(
    run: str | Path | Run = DEFAULT_RUN,
    config: InterpretConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Explains features and baselines in words, scores them on other text and writes `RUN/interpret`.

    Args:
        run: the run folder, after `compare_dicts`; with groups of baselines after `fit_baselines`.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`directions=12`).
        force: do it again where it was done with other settings, or from another comparison.
        quiet: no progress.

    Returns:
        {"verdict", "number" that it rests on, "reason", "explained": directions, "scores": group -> mean correlation,
        "missing": what could not be compared, with why}.

    Raises:
        StageMissing: dictionaries were not compared, or activations or text are not there.
        ContextsUnknown, DatasetUnfit: the activations do not come in contexts, or in too few.
        InvalidSetting: a dictionary that is not there, or of other activations.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, InterpretConfig, config, settings)
    comparison = load_comparison(home, own=KEY)
    require(home, [key for key in INTERPRETED if home.is_done(key)], own=KEY)
    names, others = _named(chosen, comparison)
    inputs = {
        "comparison": digest(home.comparison_path),
        "activations": fingerprint_of_dataset(home, chosen.dataset, KEY),
        "others": digest_of_others(others),
    } | optional_digests(home, INTERPRETED)
    folder = home.path / KEY
    needs = [folder / name for name in ("interpretations.json", "directions.csv")]

    def do(_: Stage) -> dict[str, Any]:
        return _make(home, chosen, comparison, names, others, folder, watching(quiet))

    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=[folder], needs=needs, force=force, quiet=quiet)


def load_interpretations(run: Run) -> dict[str, Any] | None:
    """What interpretations.json holds; None where the run has no finished interpret stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.path / KEY / "interpretations.json", FORMAT, "groups", dict)


def _make(
    run: Run,
    config: InterpretConfig,
    comparison: Comparison,
    names: list[str],
    others: list[str],
    folder: Path,
    watch: Watch,
) -> dict[str, Any]:
    dataset = store.Dataset(dataset_path(run, config.dataset))
    tokens = tokens_of(run)
    if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
        raise StageMissing(f"{dataset.path}: not harvested from this run's text; run: sparsecode harvest{run.flag}")
    settings = config.part(InterpretSettings)
    own = {name: Dictionary.load(run.dictionaries_path / name) for name in names}
    own |= {path: load_dictionary(path) for path in others}
    check_width(own, dataset)
    sweep = ComparedSweep("run", comparison, own)
    groups = feature_groups(sweep, own, config.directions, config.seed)
    baselines = (load_baselines(run) or {}).get("baselines", ())
    loaded = {row["name"]: Dictionary.load(run.path / "baselines" / row["name"]) for row in baselines}
    missing = {} if loaded else {"baselines": f"There are none; run: sparsecode baselines{run.flag}"}
    add_baselines(groups, loaded, config.directions, config.seed)
    _add_examples(groups, run, dataset)
    control = None
    try:
        control = _control(run, config, comparison, dataset)
    except SparsecodeError as error:
        missing[CONTROL] = told(error)
    for why in missing.values():
        watch.note(f"{KEY}: {why}")
    found = interpret(dataset, Vocabulary.of(tokens.tokenizer), groups, settings, control, watch)
    record: dict[str, Any] = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "hook_point": str(dataset.provenance.get("hook_point", "")),
        "dataset_fingerprint": dataset.fingerprint,
        "tokens_fingerprint": tokens.fingerprint,
        "model_fingerprint": dataset.provenance.get("model_fingerprint"),
        "explainer": "embedded",
        "missing": missing,
    } | found.as_json()
    write_text(folder / "directions.csv", found.table())
    write_json(folder / "interpretations.json", record)
    return {
        "verdict": record["verdict"]["verdict"],
        "number": record["verdict"]["number"],
        "reason": record["verdict"]["reason"],
        "explained": sum(group["explained"] for group in record["groups"]),
        "scores": {group["name"]: group["scores"]["correlation"]["value"] for group in record["groups"]
                   if group["scores"]},
        "missing": missing,
    }  # fmt: skip


def _named(config: InterpretConfig, comparison: Comparison) -> tuple[list[str], list[str]]:
    """The dictionaries that are asked for: those of the run by name, and paths of others."""
    if config.dictionaries is None:
        best = comparison.best()
        return [comparison.names[0] if best is None else best[0].name], []
    asked = list(dict.fromkeys(one.strip() for one in config.dictionaries.split(",") if one.strip()))
    names = [one for one in asked if one in comparison.names]
    return names, [one for one in asked if one not in names]


def digest_of_others(paths: list[str]) -> str:
    """Digest of the files of dictionaries that are not of the run."""
    if not paths:
        return ""
    digest = hashlib.sha256()
    for path in paths:
        found = find_format(path)
        # What is missing is reported where it is read.
        files = [] if found is None else [*found.files, *files_of(found.path)]
        for file in dict.fromkeys(file for file in files if file.is_file()):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def check_width(dictionaries: Mapping[str, Dictionary], dataset: store.Dataset) -> None:
    """Raises NotExpressible where a dictionary reads activations of another width."""
    for name, own in dictionaries.items():
        if own.activation_dim != dataset.activation_dim:
            raise NotExpressible(
                f"{name}: reads activations of {own.activation_dim} dimensions, and those of {dataset.path} have "
                f"{dataset.activation_dim}; name dictionaries of this hook point with --dictionaries"
            )


def _add_examples(groups: Chosen, run: Run, dataset: store.Dataset) -> None:
    """The directions whose contexts the report shows under claim 3, to be explained too."""
    claims = load_claims(run)
    numbers = None if claims is None else claims.claims["3"].numbers
    if claims is None or numbers is None:
        return
    shown: dict[str, list[int]] = {}
    for one in numbers.examples["feature"]:
        shown.setdefault(one["dictionary"], []).append(one["feature"])
    made = {name: Dictionary.load(run.dictionaries_path / name) for name in shown}
    width, mean = dataset.activation_dim, torch.as_tensor(dataset.statistics["mean"], dtype=torch.float32)
    judged = run.config()["stages"]["claims"]["settings"]
    _, random = beside(judged["directions"], width, judged["seed"])
    shown[NEURONS] = [one["neuron"] for one in numbers.examples["neuron"]]
    shown[CHANCE] = [one["direction"] for one in numbers.examples["random"]]
    made[NEURONS] = Dictionary(torch.eye(width), torch.zeros(width), torch.eye(width))
    made[CHANCE] = Dictionary(random, torch.zeros(len(random)), random, mean=mean)
    groups.add(EXAMPLES, shown, made | groups.dictionaries)


def _control(
    run: Run, config: InterpretConfig, comparison: Comparison, dataset: store.Dataset
) -> tuple[Control, Dictionary] | None:
    """An untrained GPT on the tokens of the dataset, and a dictionary trained as the run's best was.

    None where it was not asked for, or where the run's activations are not of its own GPT.

    Raises:
        StageMissing: the run's own GPT is not there any more.
    """
    stages = run.config()["stages"]
    if not config.control or "gpt" not in (stages.get(f"harvest/{dataset.path.name}", {}).get("inputs") or {}):
        return None
    trained = run.finished("train-gpt", "sparsecode train-gpt")
    if trained["fingerprint"] != dataset.provenance.get("model_fingerprint"):
        return None
    gpt = load_gpt(run.gpt_path)
    settings = TrainDictsConfig.recorded(stages["train-dicts"], "train-dicts")
    best = comparison.best()
    entry = comparison.entries[0] if best is None else best[0]
    samples = min(config.control_samples, int(entry.about.get("samples_seen") or config.control_samples))
    own = Control(
        gpt.config, int(stages["train-gpt"]["settings"]["seed"]), str(dataset.provenance["hook_point"]), dataset
    )
    fitted = {name: getattr(settings, name) for name in ("batch_size", "lr", "lr_scaling", "warmup_steps",
              "decay_fraction", "l1_warmup", "normalize", "engine", "device")}  # fmt: skip
    fitted |= {
        "sizes": [entry.dict_size], "seeds": [config.seed], "start": plan.start(settings),
        "loss": settings.part(LossSettings), "eval_rows": min(settings.eval_rows, samples // 4),
    }  # fmt: skip
    fitted |= {"kinds": [entry.kind]} if entry.kind is not None else {}
    fitted |= {"l1": [entry.l1]} if entry.l1 is not None else {}
    return own, own.dictionary(samples, fitted)
