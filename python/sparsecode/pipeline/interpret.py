"""The interpret stage: explanations of features beside those of neurons, PCA, random directions and an untrained model.

RUN/interpret/interpretations.json    groups with means and intervals, the verdict, every direction with its explanation
RUN/interpret/directions.csv          a line per direction
RUN/interpret/calls.jsonl             what a language model was asked and answered, where there is one
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsecode import store
from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison import Comparison
from sparsecode.corpus.display import token_texts
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import files_of
from sparsecode.errors import InvalidSetting, NotExpressible, SparsecodeError, StageMissing
from sparsecode.gpt import load_gpt
from sparsecode.harvest.models import load_model
from sparsecode.interop import find_format, load_dictionary
from sparsecode.interpretation.control import Control
from sparsecode.interpretation.embedding import Embedder, embedding_scores
from sparsecode.interpretation.examples import Material, material
from sparsecode.interpretation.groups import CONTROL, Chosen, Direction, add_baselines, feature_groups
from sparsecode.interpretation.interpreting import EXAMPLES, Interpretations, InterpretSettings, interpret
from sparsecode.interpretation.sample import Sample
from sparsecode.interpretation.vocabulary import Vocabulary
from sparsecode.machine import versions
from sparsecode.pipeline import plan
from sparsecode.pipeline.advice import advised, told
from sparsecode.pipeline.asking import Asking
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
    dry_run: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Explains features and baselines in words, scores them on other text and writes `RUN/interpret`.

    Args:
        run: the run folder, after `compare_dicts`; with groups of baselines after `fit_baselines`.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`directions=12`).
        force: do it again where it was done with other settings, or from another comparison.
        quiet: no progress.
        dry_run: only say what asking the endpoint would take: nothing is sent, and nothing written.

    Returns:
        {"verdict", "number" that it rests on, "reason", "explained": directions, "scores": group -> mean correlation,
        "missing": what could not be compared, with why}. With an endpoint also "asked": {"answers": calls that were
        answered, "left": calls that were not, "spent"}. With `dry_run` what `Asking.forecast` gives.

    Raises:
        EndpointFailed: the endpoint accepts no call, or answers none; what was answered is kept.
        MissingExtra: a package that asking needs is not installed.
        StageMissing: dictionaries were not compared, or activations or text are not there.
        ContextsUnknown, DatasetUnfit: the activations do not come in contexts, or in too few.
        InvalidSetting: a dictionary that is not there, or of other activations; an endpoint without a model, a key that
            is not there, or a budget in dollars where the price is not known.
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
    outputs = [folder / name for name in ("interpretations.json", "directions.csv")]
    asking = None if chosen.endpoint is None else Asking.of(chosen, folder / "calls.jsonl")
    if dry_run:
        if asking is None:
            raise InvalidSetting(f"{KEY}: --dry-run says what asking an endpoint would take; name one with --endpoint")
        materials: dict[Direction, Material | str] = {}
        _interpret(home, chosen, comparison, names, others, materials, watching(quiet))
        return asking.forecast(materials)

    def do(stage: Stage) -> dict[str, Any]:
        if asking is not None:
            stage.outputs.append(asking.path)  # where it is left, the stage is known as begun with these settings
        return _make(home, chosen, comparison, names, others, folder, asking, watching(quiet))

    # Answers of an endpoint are no output: they are paid for, and stay whatever is done again.
    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=outputs, needs=outputs, force=force, quiet=quiet)


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
    asking: Asking | None,
    watch: Watch,
) -> dict[str, Any]:
    embedder = _embedder(config.embedder, watch)
    materials: dict[Direction, Material | str] = {}
    shown = None if asking is None and embedder is None else materials
    found, about = _interpret(run, config, comparison, names, others, shown, watch)
    if embedder is not None:
        found = found.with_embedding(embedding_scores(embedder, materials, watch))
        about["embedder_fingerprint"] = embedder.model.fingerprint
    if asking is not None:
        found = found.with_judged(asking.ask(materials, watch))
    record: dict[str, Any] = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        **about,
        "explainer": "embedded",
        **({} if asking is None else {"endpoint": asking.record()}),
        **found.as_json(),
    }
    write_text(folder / "directions.csv", found.table())
    write_json(folder / "interpretations.json", record)
    return {
        "verdict": record["verdict"]["verdict"],
        "number": record["verdict"]["number"],
        "reason": record["verdict"]["reason"],
        "explained": sum(group["explained"] for group in record["groups"]),
        "scores": {group["name"]: group["scores"]["correlation"]["value"] for group in record["groups"]
                   if group["scores"]},
        "missing": record["missing"],
    } | ({} if asking is None else {"asked": asking.result()})  # fmt: skip


def _interpret(
    run: Run,
    config: InterpretConfig,
    comparison: Comparison,
    names: list[str],
    others: list[str],
    materials: dict[Direction, Material | str] | None,
    watch: Watch,
) -> tuple[Interpretations, dict[str, Any]]:
    """What the embedded explainer finds, and where the data came from. `materials` gets excerpts of directions."""
    dataset = store.Dataset(dataset_path(run, config.dataset))
    tokens = tokens_of(run)
    if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
        raise StageMissing(f"{dataset.path}: not harvested from this run's text; run: sparsecode harvest{run.flag}")
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

    def show(ids: Sequence[int], place: int) -> list[str]:
        return token_texts(tokens.tokenizer, ids, place, 0, len(ids))

    def look(direction: Direction, z: npt.NDArray[np.float64], sample: Sample) -> None:
        if materials is not None:
            materials[direction] = material(direction, z, sample, show, config.seed)

    vocabulary, settings = Vocabulary.of(tokens.tokenizer), config.part(InterpretSettings)
    return interpret(dataset, vocabulary, groups, settings, control, watch, look), {
        "hook_point": str(dataset.provenance.get("hook_point", "")),
        "dataset_fingerprint": dataset.fingerprint,
        "tokens_fingerprint": tokens.fingerprint,
        "model_fingerprint": dataset.provenance.get("model_fingerprint"),
        "missing": missing,
    }


def _embedder(folder: str | None, watch: Watch) -> Embedder | None:
    """The sentence encoder of a folder: a name would be looked for elsewhere."""
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise InvalidSetting(f"{KEY}: --embedder {folder}: there is no such folder")
    return Embedder(load_model(folder, watch=watch))


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
