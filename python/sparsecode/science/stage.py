"""The claims stage: every claim of the seed experiment with its verdict and numbers, in RUN/claims.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsecode import store
from sparsecode.checkpoint import write_json
from sparsecode.compare import Comparison, load_comparison
from sparsecode.config import ClaimsConfig
from sparsecode.corpus import load_tokens
from sparsecode.errors import InvalidSetting, SparsecodeError, StageMissing
from sparsecode.machine import versions
from sparsecode.progress import say
from sparsecode.recall import recalled
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.science import (
    basis,
    bimodality,
    growth,
    interpretability,
    normalisation,
    recurrence,
    starts,
    sweeps,
    trained,
)
from sparsecode.science.evidence import Evidence, Family, Finding
from sparsecode.science.examples import Rows
from sparsecode.science.records import load_record
from sparsecode.science.verdicts import NOT_TESTED
from sparsecode.stale import digest
from sparsecode.sweep import Dictionary

FORMAT = 3
KEY = "claims"

# By number. The other claims of the seed (toy models, baselines) have commands of their own.
CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
    "1": recurrence.judge,
    "2": bimodality.judge,
    "3": interpretability.judge,
    "4": normalisation.judge,
    "5": growth.judge,
    "6": basis.judge,
}


def check_claims(
    run: str | Path | Run = DEFAULT_RUN,
    config: ClaimsConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Tests the claims on a run and writes `RUN/claims.json`, and the sweeps it needs into `RUN/science`.

    A claim whose data are gone (activations, text) is "not tested", with the reason.

    Args:
        run: the run folder, after `compare_dicts`.
        config: settings; without it those of the run (`sparsecode.recall`). `settings` change single ones
            (`sweep=False`).
        force: do it again where it was done with other settings or from another comparison.
        quiet: no progress.

    Returns:
        {"verdicts": number of the claim -> verdict, "not_tested": number -> why, "thin": what of the sweeps beside the
        run's own is below the bounds of `trained`}.

    Raises:
        StageMissing: the run's dictionaries were not compared.
        InvalidSetting: a setting that cannot be used.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    config = _checked(recalled(run, ClaimsConfig, config, settings))
    comparison = load_comparison(run, own=KEY)
    inputs = {"comparison": digest(run.comparison_path), "activations": _fingerprint(run, config)}
    outputs = [run.claims_path, run.path / sweeps.FOLDER]
    if config.sweep and (force or not run.is_done(KEY)):
        own = run.config()["stages"]["train-dicts"]["settings"]
        sweeps.check_memory(config, own, int(comparison.record["dictionaries"][0]["activation_dim"]))
    with run.stage(KEY, config, inputs=inputs, outputs=outputs, force=force) as stage:
        if stage.done and run.claims_path.exists():
            if not quiet:
                say(f"{KEY}: already done in {run.path} with the same settings")
            return stage.result
        evidence = gather(run, config, comparison, quiet=quiet)
        found = {
            number: interpretability.judge(evidence, quiet=quiet) if number == "3" else judge(evidence)
            for number, judge in CLAIMS.items()
        }
        if evidence.untrained_model:
            verdict = trained.too_thin(evidence.untrained_model)
            found = {number: replace(finding, verdict=verdict) for number, finding in found.items()}
        thin = thin_of(evidence)
        write_json(run.claims_path, as_json(found, config, thin) | {"starts": starts_of(evidence)})
        result = {
            "verdicts": {number: finding.verdict.verdict for number, finding in found.items()},
            "not_tested": {
                number: finding.verdict.reason
                for number, finding in found.items()
                if finding.verdict.verdict == NOT_TESTED
            },
            "thin": thin.get(KEY, []),
        }
        stage.finish(result)
        return result


def load_claims(run: Run) -> dict[str, Any] | None:
    """What claims.json holds; None where the run has no finished claims stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.claims_path, FORMAT, "claims", dict)


def as_json(found: dict[str, Finding], config: ClaimsConfig, thin: dict[str, list[str]]) -> dict[str, Any]:
    """What claims.json holds."""
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "thin": thin,
        "claims": {number: finding.as_json() for number, finding in found.items()},
    }


def starts_of(evidence: Evidence) -> dict[str, Any] | None:
    """What claims.json says of the starts; None where they were not compared."""
    if not evidence.starts:
        return None
    return starts.summary(evidence.starts, evidence.start_samples, evidence.config.draws)


def gather(run: Run, config: ClaimsConfig, comparison: Comparison, *, quiet: bool) -> Evidence:
    """Everything the claims may use; what cannot be had is left out and named in `missing`."""
    main = family("run", run, comparison)
    missing: dict[str, str] = {}
    dataset = decode = plain = divided = None
    begun: dict[str, Family] = {}
    samples = 0
    try:
        folder = _dataset_path(run, config)
        dataset = store.Dataset(folder)
        if config.sweep:
            settings = run.config()["stages"]["train-dicts"]["settings"]
            one, other = sweeps.train_both(run, config, str(folder), settings, main.dimensions, quiet=quiet)
            plain, divided = family("plain", *one), family("per-size", *other)
        else:
            missing["sweeps"] = "The sweep under both normalisations was not asked for (--sweep)."
        settings = run.config()["stages"]["train-dicts"]["settings"]
        for kind, (beside, found) in starts.train_starts(run, config, str(folder), settings, quiet=quiet).items():
            begun[kind] = family(kind, beside, found)
            samples = int(next(iter(begun[kind].dictionaries.values())).meta.get("samples_seen", 0))
        tokens = load_tokens(run)
        if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
            raise StageMissing("The activations were not harvested from this run's text.")
        decode = tokens.texts
        if not dataset.contexts_known and not quiet:
            say(f"{KEY}: the activations do not say where contexts end; examples may run across; harvest them again")
    except SparsecodeError as error:
        missing.setdefault("sweeps", str(error))
        missing["text"] = str(error)
        if not quiet:
            say(f"{KEY}: not everything can be tested ({error})")
    return Evidence(
        config, main, plain, divided, dataset, decode, begun, samples, missing, untrained_model(run, dataset)
    )


def thin_of(evidence: Evidence) -> dict[str, list[str]]:
    """By the stage that made it: what is below the bounds of `trained`; stages without anything are left out."""
    found = {
        "train-gpt": [evidence.untrained_model] if evidence.untrained_model else [],
        "train-dicts": _thin_family(evidence.main),
        KEY: [
            f"{one.label} sweep: {line}"
            for one in (evidence.plain, evidence.divided)
            if one is not None
            for line in _thin_family(one)
        ],
    }
    return {stage: lines for stage, lines in found.items() if lines}


def _thin_family(one: Family) -> list[str]:
    if not one.untrained:
        return []
    return [f"{len(one.untrained)} of {len(one.entries)} dictionaries: {trained.listed(one.untrained)}"]


def untrained_model(run: Run, dataset: Rows | None) -> str:
    """Why the model whose activations these are says nothing of a trained one; empty where it is not the run's own."""
    stages = run.config()["stages"]
    result = stages.get("train-gpt", {}).get("result") or {}
    if dataset is not None:
        read = dataset.provenance.get("model_fingerprint")
    else:
        hook = (stages.get("train-dicts", {}).get("result") or {}).get("hook_point")
        read = stages.get(f"harvest/{hook}", {}).get("inputs", {}).get("gpt")
    return trained.gpt(result) if read is not None and read == result.get("fingerprint") else ""


def family(label: str, run: Run, comparison: Comparison) -> Family:
    """A comparison with the weights of its dictionaries."""
    return Family(label, comparison, {name: Dictionary.load(run.dictionaries_path / name) for name in comparison.names})


def _dataset_path(run: Run, config: ClaimsConfig) -> Path:
    if config.dataset is not None:
        return Path(config.dataset)
    record = run.config()["stages"].get("train-dicts", {})
    if (record.get("beside") or {}).get("dataset"):
        return Path(record["beside"]["dataset"])
    hook = (record.get("result") or {}).get("hook_point")
    folder = Path(run.activations_path / str(hook))
    if not hook or not folder.exists():
        raise StageMissing(f"{run.path}: its activations are not there; run: sparsecode harvest{run.flag}")
    return folder


def _fingerprint(run: Run, config: ClaimsConfig) -> str:
    """The fingerprint of the activations; if they are gone, of those that were read, whose results stay true."""
    try:
        return store.Dataset(_dataset_path(run, config)).fingerprint
    except SparsecodeError:
        before = run.config()["stages"].get(KEY, {})
        return str((before.get("inputs") or {}).get("activations") or "")


def _checked(config: ClaimsConfig) -> ClaimsConfig:
    for name, least in {"draws": 100, "contexts": 1, "directions": 1, "batch_size": 1}.items():
        if getattr(config, name) < least:
            raise InvalidSetting(f"claims: --{name.replace('_', '-')} must be at least {least}")
    if not -1 <= config.threshold < 1:
        raise InvalidSetting("claims: --threshold must be below 1")
    return config
