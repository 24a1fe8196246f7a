"""The consensus stage: what recurs in a run's dictionaries, or in any dictionary files, as a dictionary of its own.

RUN/consensus.json            settings, members, features by support, reconstruction, features found again (see
                              `consensus.records`)
RUN/consensus.safetensors     per member NAME.label, NAME.votes, NAME.cosine [n]; per cluster its support and the rest
RUN/consensus/NAME.safetensors + .json    the dictionary; features.support, seeds, coherence and expected_cosine
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecode import store
from sparsecode.checkpoint import save_tensors, write_json
from sparsecode.comparison import Comparison
from sparsecode.comparison.comparing import compare_members
from sparsecode.comparison.members import check_widths, fingerprint, member_of, places
from sparsecode.comparison.records import BySeed, CompareSettings
from sparsecode.consensus.groups import groups_of
from sparsecode.consensus.making import FORMAT, Data, Made, check_encoders, make
from sparsecode.consensus.records import ConsensusRecord, ConsensusSettings, Quality
from sparsecode.consensus.refit import kinds_of
from sparsecode.consensus.voters import Voter, voter_of
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import common_name, files_of
from sparsecode.errors import InvalidSetting, LeftOut, SparsecodeError
from sparsecode.evaluation.groups import masked
from sparsecode.interop import load_found
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.claims import dataset_path, fingerprint_of_dataset
from sparsecode.pipeline.compare import load_comparison, sweep_of
from sparsecode.pipeline.config import ConsensusConfig
from sparsecode.pipeline.eval import evaluate_run
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import digest
from sparsecode.records import as_json, from_json
from sparsecode.sweep.batches import DatasetBatches, rows_held_out
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.normalization import Normalization

KEY = "consensus"
BATCH = 2048  # rows of a step of the refit
LOSS_ROWS = 4096  # positions to measure loss on: seconds on two cores, and enough to tell dictionaries apart
_MOST_HELD_OUT = 65_536  # rows at the end of a dataset that nothing here trains on, as in train-dicts


@advised
def make_consensus(
    run: str | Path | Run = DEFAULT_RUN,
    config: ConsensusConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Makes the consensus of a run's dictionaries and writes it, with its record, into the run.

    Args:
        run: the run folder, after `compare_dicts`.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`support=3`).
        force: do it again where it was done with other settings or from another comparison.
        quiet: no progress.

    Returns:
        {"dictionary": its name, "features", "support", "members": names, "held_out": names}.

    Raises:
        StageMissing: the run's dictionaries were not compared, or their activations are gone.
        InvalidSetting: a setting that cannot be used, or no feature with the support.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, ConsensusConfig, config, settings)
    how = chosen.part(ConsensusSettings)
    comparison = load_comparison(home, own=KEY)
    names = _chosen(comparison, chosen.dictionaries)
    inputs = {
        "comparison": digest(home.comparison_path),
        "activations": fingerprint_of_dataset(home, chosen.dataset, KEY),
    }
    record = home.consensus_path
    folder, tensors = home.path / KEY, record.with_suffix(".safetensors")

    def do(_: Stage) -> dict[str, Any]:
        voters = []
        for name in names:
            path = home.dictionaries_path / name
            voters.append(voter_of(Dictionary.load(path), name, fingerprint(path)))
        dataset = store.Dataset(dataset_path(home, chosen.dataset))
        told = home.config()["stages"]["train-dicts"]["result"].get("eval_rows")
        data = _data(voters, how, chosen, dataset, told)
        made = make(comparison, voters, how, name=chosen.name, data=data, watch=watching(quiet))
        if chosen.loss:
            _add_loss(home, made, data.rows, quiet=quiet)
        write(made, folder / made.record.name, record)
        return {
            "dictionary": made.record.name,
            "features": made.record.features,
            "support": made.record.support,
            "members": [one.name for one in made.record.members],
            "held_out": [one.name for one in made.record.held_out],
        }

    outputs = [record, tensors, folder]
    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=outputs, needs=outputs, force=force, quiet=quiet)


@advised
def consensus_of_files(
    paths: Iterable[str | Path],
    config: ConsensusConfig | None = None,
    *,
    quiet: bool = False,
    **settings: Any,
) -> Made:
    """The consensus of any dictionaries; a folder stands for all that are in it, a run for its sweep. Writes nothing.

    Args:
        paths: two or more dictionaries, in any of the known formats.
        config: settings; `dataset` names activations to train the encoder on, without which there is none to train.
        quiet: no progress.

    Raises:
        InvalidSetting: a setting that cannot be used, a dictionary given twice, or no feature with the support.
        DictionaryInvalid, ZeroAtom, NotExpressible: one of them cannot be used.
    """
    chosen = (config or ConsensusConfig()).changed(**settings)
    how = chosen.part(ConsensusSettings)
    found = [one for path in map(Path, paths) for one in sweep_of(path) or places([path], LeftOut(None))]
    if chosen.dictionaries:
        found = [one for one in found if _matches(one.name, chosen.dictionaries)]
    if len({one.path.resolve() for one in found}) < len(found):
        raise InvalidSetting("a dictionary was given twice; name each file once")
    if len(found) < 2:
        raise InvalidSetting(f"a consensus needs two or more dictionaries, not {len(found)}")
    unique = len({one.name for one in found}) == len(found)
    named = [(one.name if unique else str(one.path), one.path, load_found(one)) for one in found]
    voters = [voter_of(dictionary, name, fingerprint(path)) for name, path, dictionary in named]
    dataset = None if chosen.dataset is None else store.Dataset(chosen.dataset)
    if how.refit == "encoder" and dataset is None:
        raise InvalidSetting("the encoder is trained on activations, which are not named", remedy="consensus_data")
    check_encoders(voters, how)
    data = None if dataset is None else _data(voters, how, chosen, dataset, None)
    members = [member_of(dictionary, name) for name, _, dictionary in named]
    check_widths(members)
    # Codes of both signs make opposite atoms one feature.
    comparing = CompareSettings(absolute=all(voter.signed for voter in voters))
    watch = watching(quiet)
    comparison = compare_members(members, [path for _, path, _ in named], comparing, match_all=False, watch=watch)
    return make(comparison, voters, how, name=chosen.name, data=data, watch=watch)


def write(made: Made, dictionary: Path, record: Path) -> list[Path]:
    """Writes the dictionary by its common name, and the record (.json) with tensors beside it; returns the files."""
    made.dictionary.save(dictionary)
    tensors = record.with_suffix(".safetensors")
    save_tensors(tensors, made.tensors(), {"format": FORMAT})
    write_json(record, as_json(made.record))
    return [*files_of(dictionary), tensors, record]


def write_files(made: Made, out: str | Path) -> list[Path]:
    """Writes the consensus of any dictionaries: OUT.safetensors and OUT.json, and the record as OUT-consensus.

    Raises:
        InvalidSetting: something of that name is there already.
    """
    name = common_name(Path(out))
    record = name.with_name(f"{name.name}-consensus.json")
    for file in (*files_of(name), *files_of(record.with_suffix(""))):
        if file.exists():
            raise InvalidSetting(f"{file}: is there already; choose another name")
    return write(made, name, record)


def load_consensus(run: Run) -> ConsensusRecord | None:
    """What consensus.json holds; None where the run has no finished consensus.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """

    def read(record: dict[str, Any]) -> ConsensusRecord:
        found: ConsensusRecord = from_json(ConsensusRecord, record)
        return found

    return load_record(run, KEY, run.consensus_path, FORMAT, "supports", read)


def _chosen(comparison: Comparison, patterns: str | None) -> list[str]:
    """Names of the dictionaries that take part.

    Raises:
        InvalidSetting: a pattern that nothing matches, or fewer than two dictionaries.
    """
    if patterns is not None:
        for pattern in _patterns(patterns):
            if not any(fnmatchcase(name, pattern) for name in comparison.names):
                raise InvalidSetting(
                    f"consensus: --dictionaries: nothing in the run matches '{pattern}'; it has "
                    f"{', '.join(comparison.names)}"
                )
        names = [name for name in comparison.names if _matches(name, patterns)]
    else:
        groups = comparison.contents.by_seed or []
        names = max(groups, key=_recurring).dictionaries if groups else []
    if len(names) < 2:
        raise InvalidSetting(
            "consensus: no two dictionaries differ in their seed alone; train some with --seeds, compare them, or name "
            "members with --dictionaries"
            if patterns is None
            else f"consensus: --dictionaries: {patterns} is one dictionary; a consensus needs two or more"
        )
    return names


def _recurring(group: BySeed) -> tuple[int, int]:
    return len(group.seeds), group.features - group.found[0]


def _patterns(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _patterns(patterns))


def _data(
    voters: Sequence[Voter],
    how: ConsensusSettings,
    config: ConsensusConfig,
    dataset: store.Dataset,
    held_out: int | None,
) -> Data:
    """The dataset as it is used: its last rows to measure on, those before to train on."""
    wide = [voter.name for voter in voters if voter.atoms.shape[1] != dataset.activation_dim]
    if wide:
        raise InvalidSetting(
            f"{dataset.path}: its rows have {dataset.activation_dim} dimensions, not those of {wide[0]}; name the "
            "activations that the dictionaries were trained on"
        )
    kinds = kinds_of(voters, how, 1) if how.refit == "encoder" else ()
    engine = choose_engine(config.engine, config.device, threads=config.threads, kinds=kinds)
    train = dataset.rows - (held_out or rows_held_out(_MOST_HELD_OUT, dataset.rows))
    rows = dataset.read(train, min(dataset.rows, train + how.eval_rows))
    return Data(
        rows=rows,
        batches=lambda normalization: DatasetBatches(dataset, BATCH, train, normalization),
        normalization=Normalization.of(dataset.statistics, "center", dataset.path),
        engine=engine,
        threads=config.threads,
    )


def _add_loss(run: Run, made: Made, rows: Tensor, *, quiet: bool) -> None:
    """What the consensus and its members cost in the run's own model; a note where that cannot be told."""
    stages = run.config()["stages"]
    if (stages.get("train-gpt") or {}).get("status") != "done":
        return
    dictionaries: dict[str, Dictionary] = {"consensus": made.dictionary}
    dictionaries |= {one.name: one.dictionary for one in made.members}
    if made.record.groups:
        own = made.members[0]
        masks = groups_of(made.clusters, 0, own, made.record.support, rows)
        for what, keep in masks.items():
            dictionaries[f"{what}, kept"] = masked(own.dictionary, keep)
            dictionaries[f"{what}, dropped"] = masked(own.dictionary, ~keep)
    try:
        found = {one.name: one for one in evaluate_run(run, dictionaries, rows=LOSS_ROWS, quiet=quiet)}
    except SparsecodeError as error:
        made.record.notes.append(f"loss recovered is not known: {error}")
        return

    def told(row: Quality) -> Quality:
        own = found.get(row.what)
        return row if own is None else replace(row, loss_recovered=own.loss_recovered, kl=own.kl_spliced)

    made.record.quality = [told(row) for row in made.record.quality]
    made.record.groups = made.record.groups and [
        replace(one, kept=told(one.kept), dropped=told(one.dropped)) for one in made.record.groups
    ]
