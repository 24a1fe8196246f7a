"""The claims stage: every claim of the seed experiment with its verdict and numbers, in RUN/claims.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsecode import store
from sparsecode.checkpoint import write_json
from sparsecode.comparison import Comparison
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting, SparsecodeError, StageMissing
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.advice import advised, told
from sparsecode.pipeline.compare import load_comparison
from sparsecode.pipeline.config import ClaimsConfig
from sparsecode.pipeline.model_text import tokens_of
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import digest
from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence, JudgeSettings
from sparsecode.science.claims.judge import FORMAT, Findings, judged
from sparsecode.science.claims.verdicts import NOT_TESTED
from sparsecode.science.top_contexts import Rows

KEY = "claims"


@advised
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
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
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
    home, chosen = called(run, ClaimsConfig, config, settings)
    comparison = load_comparison(home, own=KEY)
    inputs = {
        "comparison": digest(home.comparison_path),
        "activations": fingerprint_of_dataset(home, chosen.dataset, KEY),
    }
    outputs = [home.claims_path, home.path / sweeps.FOLDER]
    if chosen.sweep and (force or not home.is_done(KEY)):
        own = home.config()["stages"]["train-dicts"]["settings"]
        sweeps.check_memory(chosen, own, comparison.dimensions)

    def do(_: Stage) -> dict[str, Any]:
        found = judged(gather(home, chosen, comparison, quiet=quiet))
        write_json(home.claims_path, found.as_json(chosen.record()))
        verdicts = {number: finding.verdict for number, finding in found.claims.items()}
        return {
            "verdicts": {number: own.verdict for number, own in verdicts.items()},
            "not_tested": {number: own.reason for number, own in verdicts.items() if own.verdict == NOT_TESTED},
            "thin": found.thin.get(KEY, []),
        }

    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=outputs, force=force, quiet=quiet)


def load_claims(run: Run) -> Findings | None:
    """The findings that claims.json holds; None where the run has no finished claims stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.claims_path, FORMAT, "claims", Findings.from_json)


def gather(run: Run, config: ClaimsConfig, comparison: Comparison, *, quiet: bool) -> Evidence:
    """Everything the claims may use; what cannot be had is left out and named in `missing`."""
    watch = watching(quiet)
    main = compared("run", run, comparison)
    missing: dict[str, str] = {}
    dataset = decode = plain = divided = None
    begun: dict[str, ComparedSweep] = {}
    samples = 0
    try:
        folder = dataset_path(run, config.dataset)
        dataset = store.Dataset(folder)
        settings = run.config()["stages"]["train-dicts"]["settings"]
        if config.sweep:
            one, other = sweeps.train_both(run, config, str(folder), settings, comparison.dimensions, quiet=quiet)
            plain, divided = compared("plain", *one), compared("per-size", *other)
        else:
            missing["sweeps"] = "The sweep under both normalisations was not asked for (--sweep)."
        for kind, (beside, found) in sweeps.train_starts(run, config, str(folder), settings, quiet=quiet).items():
            begun[kind] = compared(kind, beside, found)
            samples = int(next(iter(begun[kind].dictionaries.values())).meta.get("samples_seen", 0))
        tokens = tokens_of(run)
        if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
            raise StageMissing("The activations were not harvested from this run's text.")
        decode = tokens.texts
        if not dataset.contexts_known:
            watch.note(
                f"{KEY}: the activations do not say where contexts end; examples may run across; harvest them again"
            )
    except SparsecodeError as error:
        missing.setdefault("sweeps", told(error))
        missing["text"] = told(error)
        watch.note(f"{KEY}: not everything can be tested ({told(error)})")
    return Evidence(
        config.part(JudgeSettings), main, plain, divided, dataset, decode, begun, samples, missing,
        untrained_model(run, dataset), watch,
    )  # fmt: skip


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


def compared(label: str, run: Run, comparison: Comparison) -> ComparedSweep:
    """A comparison with the weights of its dictionaries."""
    weights = {name: Dictionary.load(run.dictionaries_path / name) for name in comparison.names}
    return ComparedSweep(label, comparison, weights)


def dataset_path(run: Run, named: str | None) -> Path:
    """Where the activations are that a run's dictionaries were trained on: in the folder that is `named`, or the run.

    Raises:
        StageMissing: they are not there.
        InvalidSetting: they are of several hook points, or of one that transcoders write.
    """
    record = run.config()["stages"].get("train-dicts", {})
    result = record.get("result") or {}
    if result.keys() & {"hook_point_out", "layers"}:
        raise InvalidSetting(
            f"{run.path}: its dictionaries are transcoders or hold several layers; this is for those of one hook point"
        )
    if named is not None:
        return Path(named)
    if (record.get("beside") or {}).get("dataset"):
        return Path(record["beside"]["dataset"])
    hook = result.get("hook_point")
    folder = Path(run.activations_path / str(hook))
    if not hook or not folder.exists():
        raise StageMissing(f"{run.path}: its activations are not there; run: sparsecode harvest{run.flag}")
    return folder


def fingerprint_of_dataset(run: Run, named: str | None, key: str) -> str:
    """The fingerprint of the activations; if they are gone, of those that stage `key` read, whose results stay true."""
    try:
        return store.Dataset(dataset_path(run, named)).fingerprint
    except SparsecodeError:
        before = run.config()["stages"].get(key, {})
        return str((before.get("inputs") or {}).get("activations") or "")
