"""The claims stage: every claim of the seed experiment with its verdict and numbers, in RUN/claims.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsecode import store
from sparsecode.checkpoint import write_json
from sparsecode.compare import Comparison
from sparsecode.config import ClaimsConfig
from sparsecode.corpus import load_tokens
from sparsecode.errors import InvalidSetting, SparsecodeError, StageMissing
from sparsecode.machine import versions
from sparsecode.progress import say
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.science import basis, bimodality, growth, interpretability, normalisation, recurrence, sweeps
from sparsecode.science.evidence import Evidence, Family, Finding
from sparsecode.science.records import load_record
from sparsecode.sweep import Dictionary

FORMAT = 2
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
        config: settings; `settings` change single ones (`sweep=False`).
        force: do it again where it was done with other settings or from another comparison.
        quiet: no progress.

    Returns:
        {"verdicts": number of the claim -> verdict}.

    Raises:
        StageMissing: the run's dictionaries were not compared.
        InvalidSetting: a setting that cannot be used.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    config = _checked((config or ClaimsConfig()).changed(**settings))
    run.finished("compare", "sparsecode compare")
    comparison = Comparison.load(run.comparison_path)
    inputs = {"comparison": hashlib.sha256(run.comparison_path.read_bytes()).hexdigest()[:16]}
    outputs = [run.claims_path, run.path / sweeps.FOLDER]
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
        write_json(run.claims_path, as_json(found, config))
        result = {"verdicts": {number: finding.verdict.verdict for number, finding in found.items()}}
        stage.finish(result)
        return result


def load_claims(run: Run) -> dict[str, Any] | None:
    """What claims.json holds; None where the run has no finished claims stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.claims_path, FORMAT, "claims", dict)


def as_json(found: dict[str, Finding], config: ClaimsConfig) -> dict[str, Any]:
    """What claims.json holds."""
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "claims": {number: finding.as_json() for number, finding in found.items()},
    }


def gather(run: Run, config: ClaimsConfig, comparison: Comparison, *, quiet: bool) -> Evidence:
    """Everything the claims may use; what cannot be had is left out and named in `missing`."""
    main = family("run", run, comparison)
    missing: dict[str, str] = {}
    dataset = decode = plain = divided = None
    try:
        folder = _dataset_path(run, config)
        dataset = store.Dataset(folder)
        if config.sweep:
            settings = run.config()["stages"]["train-dicts"]["settings"]
            one, other = sweeps.train_both(run, config, str(folder), settings, main.dimensions, quiet=quiet)
            plain, divided = family("plain", *one), family("per-size", *other)
        else:
            missing["sweeps"] = "The sweep under both normalisations was not asked for (--sweep)."
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
    return Evidence(config, main, plain, divided, dataset, decode, missing)


def family(label: str, run: Run, comparison: Comparison) -> Family:
    """A comparison with the weights of its dictionaries."""
    return Family(label, comparison, {name: Dictionary.load(run.dictionaries_path / name) for name in comparison.names})


def _dataset_path(run: Run, config: ClaimsConfig) -> Path:
    if config.dataset is not None:
        return Path(config.dataset)
    record = run.config()["stages"].get("train-dicts", {})
    hook = (record.get("result") or {}).get("hook_point")
    folder = Path(run.activations_path / str(hook))
    if not hook or not folder.exists():
        raise StageMissing(f"{run.path}: its activations are not there; run: sparsecode harvest{run.flag}")
    return folder


def _checked(config: ClaimsConfig) -> ClaimsConfig:
    for name, least in {"draws": 100, "contexts": 1, "directions": 1, "batch_size": 1}.items():
        if getattr(config, name) < least:
            raise InvalidSetting(f"claims: --{name.replace('_', '-')} must be at least {least}")
    if not -1 <= config.threshold < 1:
        raise InvalidSetting("claims: --threshold must be below 1")
    return config
