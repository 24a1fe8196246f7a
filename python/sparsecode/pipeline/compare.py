"""The compare stage: all pairs of a run's dictionaries, or of any dictionary files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparsecode.comparison.comparing import compare_members
from sparsecode.comparison.comparison import Comparison
from sparsecode.comparison.members import fingerprint_of, load_found_members, load_members, places
from sparsecode.comparison.records import CompareSettings
from sparsecode.comparison.stability import stability_summary, store_stability
from sparsecode.errors import LeftOut, RunInvalid, StageStale
from sparsecode.interop import Found
from sparsecode.pipeline.advice import advice, advised, told
from sparsecode.pipeline.config import CompareConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import DEFAULT_RUN, Run, command_of
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import require

KEY = "compare"


@advised
def compare_dicts(
    run: str | Path | Run = DEFAULT_RUN,
    config: CompareConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Comparison:
    """Compares every dictionary of a run with every other: `RUN/comparison.json` and `RUN/comparison.safetensors`.

    Every feature's stability, the share of the other dictionaries in which it is found again, goes into the
    dictionaries' files too (`features.stability`, and a summary in their JSON); nothing else in them changes.
    A run with a single dictionary has an empty comparison, so that its report can still be written.

    Args:
        run: the run folder, after `train_dicts`.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`threshold=0.8`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Raises:
        StageMissing: the run has no trained dictionaries.
        DictionaryInvalid, ZeroAtom: one of them cannot be used.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, CompareConfig, config, settings)
    how = chosen.part(CompareSettings)
    trained = home.finished("train-dicts", "sparsecode train-dicts")
    paths = [home.dictionaries_path / name for name in trained["dictionaries"]]
    outputs = [home.comparison_path, home.comparison_path.with_suffix(".safetensors")]
    require(home, ["train-dicts"], own=KEY)
    inputs = {"dictionaries": fingerprint_of(paths), "sweep": trained.get("fingerprint") or ""}
    made: list[Comparison] = []

    def do(_: Stage) -> dict[str, Any]:
        members = load_members(paths, least=1)
        made.append(compare_members(members, paths, how, match_all=False, watch=watching(quiet)))
        made[0].save(home.comparison_path)
        _store_scores(made[0], paths, chosen.threshold)
        return _headline(made[0])

    run_stage(home, KEY, chosen, do, inputs=inputs, outputs=outputs, needs=outputs, force=force, quiet=quiet)
    if made:
        return made[0]
    comparison = _load(home)
    _store_scores(comparison, paths, chosen.threshold)  # dictionaries that were trained anew have none
    return comparison


def _load(run: Run) -> Comparison:
    with advice("run: sparsecode compare --force", RunInvalid):
        return Comparison.load(run.comparison_path)


def load_comparison(run: Run, *, own: str) -> Comparison:
    """The run's comparison, for stage `own`.

    Raises:
        StageMissing: its dictionaries were not compared.
        StageStale: they are not those that were compared, or what they were trained on has changed.
        RunInvalid: the comparison's files are broken.
    """
    run.finished(KEY, f"sparsecode {KEY}")
    require(run, [KEY], own=own)
    stages = run.config()["stages"]
    trained = run.finished("train-dicts", "sparsecode train-dicts")
    known = (stages[KEY].get("inputs") or {}).get("dictionaries")
    if known and known != fingerprint_of([run.dictionaries_path / name for name in trained["dictionaries"]]):
        again = [command_of(run, key, stages, force=True) for key in (KEY, own) if key in stages]
        raise StageStale(
            f"{run.path}: {KEY} is out of date, files of the dictionaries changed since; run: {' && '.join(again)}"
        )
    return _load(run)


@advised
def compare_files(
    paths: Iterable[str | Path], config: CompareConfig | None = None, *, quiet: bool = False, **settings: Any
) -> Comparison:
    """Compares any two or more dictionaries, all pairs; a folder stands for all that are in it, a run for its sweep.

    What cannot be used is left out where two are left, and listed in the record: `left_out`, with path and reason.

    Up to 16 dictionaries every pair is matched one-to-one as well; beyond, each with the next larger one and with the
    same from another seed. Writes nothing; see `Comparison.save` and `write_matches`.

    Raises:
        InvalidSetting: fewer than two dictionaries, or one given twice.
        StageMissing: a run without trained dictionaries.
        DictionaryInvalid, ZeroAtom, NotExpressible: a file cannot be used and fewer than two are left, or dimensions
            differ.
    """
    chosen = (config or CompareConfig()).changed(**settings).part(CompareSettings)
    left_out = LeftOut()
    found = [one for path in map(Path, paths) for one in sweep_of(path) or places([path], left_out)]
    loaded = load_found_members(found, left_out)
    members, where = [member for _, member in loaded], [one.path for one, _ in loaded]
    comparison = compare_members(members, where, chosen, match_all=True, watch=watching(quiet))
    comparison.contents.left_out = [{"path": path, "reason": told(error)} for path, error in left_out.found]
    return comparison


def sweep_of(path: Path) -> list[Found]:
    """The dictionaries of a run folder; none where it is a folder of another kind.

    Raises:
        StageMissing: a run without trained dictionaries.
    """
    if not (path / "config.json").is_file():
        return []
    run = Run(path)
    try:
        run.config()
    except RunInvalid:  # a folder of another kind with a config.json
        return []
    trained = run.finished("train-dicts", "sparsecode train-dicts")
    return [Found("sparsecode", run.dictionaries_path / name) for name in trained["dictionaries"]]


def _store_scores(comparison: Comparison, paths: Sequence[Path], threshold: float) -> None:
    """Stability of every feature into its dictionary's files; a lone dictionary has nothing to be found in."""
    if len(paths) < 2:
        return
    for own, (name, path) in enumerate(zip(comparison.names, paths, strict=True)):
        scores, cosine = comparison.tensors[f"{name}.stability"], comparison.tensors[f"{name}.cosine"]
        store_stability(path, scores, stability_summary(scores, cosine, own, threshold))


def _headline(comparison: Comparison) -> dict[str, Any]:
    """The stage's result in config.json: for each dictionary what is above the threshold."""
    entries = comparison.contents.dictionaries
    return {
        "dictionaries": comparison.names,
        "mmcs_next": {one.name: one.next.mcs.all.mean for one in entries if one.next},
        "mutual_other_seed": {one.name: one.other_seed.mutual for one in entries if one.other_seed},
        "near_duplicates": {one.name: one.near_duplicates.features for one in entries},
        "every_larger": {one.name: one.every_larger.features for one in entries if one.every_larger},
        "steadiest": len(comparison.contents.steadiest),
    }
