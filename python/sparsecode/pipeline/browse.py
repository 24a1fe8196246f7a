"""The browse stage: every feature of a run on a page, in a folder that opens anywhere.

RUN/browse/index.html    the page
RUN/browse/data/         what it shows, see `browser.folder`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsecode import store
from sparsecode.browser import effects as acting
from sparsecode.browser.browsing import BASELINE, LOGITS, OTHER, TRAINED, BrowseSettings, EffectsOf, Shown, browse
from sparsecode.browser.exports import Book, export_neuronpedia, export_saedashboard
from sparsecode.browser.folder import PAGE, slugs
from sparsecode.browser.gather import codes_of
from sparsecode.browser.serve import Answer, server
from sparsecode.browser.texts import token_table
from sparsecode.comparison import Comparison
from sparsecode.corpus import Tokens
from sparsecode.corpus.tokenizer import vocabulary_size
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting, IoFailed, SparsecodeError, StageMissing
from sparsecode.gpt import load_gpt
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.interop import load_dictionary
from sparsecode.machine import versions
from sparsecode.pipeline.advice import advised, told
from sparsecode.pipeline.baselines import load_baselines
from sparsecode.pipeline.claims import dataset_path, fingerprint_of_dataset
from sparsecode.pipeline.compare import load_comparison
from sparsecode.pipeline.config import BrowseConfig
from sparsecode.pipeline.interpret import check_width, digest_of_others, load_interpretations
from sparsecode.pipeline.model_text import tokens_of
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import BROWSED, digest, optional_digests, require
from sparsecode.watch import Watch

KEY = "browse"
EXPORTS = ("saedashboard", "neuronpedia")
FIRED = 5  # features of a token of a text that is tried
POSITIONS, TOKENS = 64, 16  # contexts of held-out text, and tokens of each, on which effects are measured
_WORDS = {
    "direct": "by the direct path to the logits, at its peak; the last norm's scale is that of the mean position",
    "causal": f"measured: mean change of the logits at {POSITIONS} positions when it is added at its peak",
}


@advised
def browse_features(
    run: str | Path | Run = DEFAULT_RUN,
    config: BrowseConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Writes `RUN/browse`: a page with every feature of the run's dictionaries and baselines, and of others.

    Args:
        run: the run folder, after `compare_dicts`.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`rows=200_000`).
        force: do it again where it was done with other settings, or from another comparison.
        quiet: no progress.

    Returns:
        {"page", "dictionaries": names, "features": their number, "bytes": of the folder, "missing": what could not be
        shown, with why}.

    Raises:
        StageMissing: dictionaries were not compared, or activations or text are not there.
        NotRecognised, NotExpressible: a dictionary that is not there, or of other activations.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, BrowseConfig, config, settings)
    comparison = load_comparison(home, own=KEY)
    require(home, [key for key in BROWSED if home.is_done(key)], own=KEY)
    names, baselines, others = _named(home, chosen, comparison)
    inputs = {
        "comparison": digest(home.comparison_path),
        "activations": fingerprint_of_dataset(home, chosen.dataset, KEY),
        "others": digest_of_others(others),
    } | optional_digests(home, BROWSED)
    folder = home.path / KEY

    def do(_: Stage) -> dict[str, Any]:
        shown = _shown(home, comparison, names, baselines, others)
        return _make(home, chosen, comparison, shown, folder, watching(quiet))

    return run_stage(
        home, KEY, chosen, do, inputs=inputs, outputs=[folder], needs=[folder / PAGE], force=force, quiet=quiet
    )


def export_browser(run: str | Path | Run, kind: str, out: Path) -> list[Path]:
    """Writes what `RUN/browse` shows in files of another program; returns the folders.

    Args:
        run: the run folder, after `browse_features`.
        kind: one of EXPORTS.
        out: where to; nothing may be there yet.

    Raises:
        StageMissing, StageStale: it was not browsed, or not since it changed.
        InvalidSetting: there is something at `out`.
        NotExpressible: the hook point is in no block.
    """
    home = run if isinstance(run, Run) else Run(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidSetting(f"{out}: there is something already; name a folder that is empty or not there")
    shown = _browsed(home)
    dictionaries = {slug: shown[name].dictionary for name, slug in slugs(shown).items()}
    book = Book.open(home.path / KEY)
    if kind == "saedashboard":
        return export_saedashboard(book, dictionaries, out)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return export_neuronpedia(book, dictionaries, out, created=created)


def serve_browser(run: str | Path | Run, port: int) -> ThreadingHTTPServer:
    """A server of `RUN/browse` on 127.0.0.1, which also tells what fires on a text where the model is there.

    Raises:
        StageMissing, StageStale: it was not browsed, or not since it changed.
        IoFailed: the port is taken.
    """
    home = run if isinstance(run, Run) else Run(run)
    shown = _browsed(home)
    config = BrowseConfig.recorded(home.config()["stages"][KEY], KEY)
    answer: Answer | None = None
    try:
        dataset = store.Dataset(dataset_path(home, config.dataset))
        model, tokens = _model(home, config, dataset, watching(True)), tokens_of(home)
        answer = partial(_fired, model, str(dataset.provenance.get("hook_point")), tokens, shown)
    except SparsecodeError as error:
        watching(False).note(f"{KEY}: no text can be tried: {told(error)}")
    try:
        return server(home.path / KEY, port, answer)
    except OSError as error:
        raise IoFailed(f"port {port} cannot be listened to ({error.strerror}); choose another with --port") from error


def _fired(
    model: LanguageModel, hook: str, tokens: Tokens, shown: Mapping[str, Shown], name: str, text: str
) -> list[dict[str, Any]]:
    """The strongest features of each token of a text: of one dictionary, or of all that are no baselines."""
    ids = tokens.encode(text)[: model.context]
    if not len(ids):
        return []
    asked = {key: own.dictionary for key, own in shown.items() if key == name or (name == "*" and own.kind != BASELINE)}
    x = model.read({"input_ids": torch.from_numpy(ids)[None]}, [hook])[hook][0].float()
    strongest: list[list[tuple[float, str, int]]] = [[] for _ in ids]
    for key, own in asked.items():
        codes = codes_of(own, x)
        values, features = codes.topk(min(FIRED, own.dict_size))
        for place, (some, which) in enumerate(zip(values.tolist(), features.tolist(), strict=True)):
            strongest[place] += [(value, key, f) for value, f in zip(some, which, strict=True) if value > 0]
    return [
        {"text": tokens.token_text(int(token)), "features": [[key, f, round(value, 4)] for value, key, f in
                                                             sorted(own, key=lambda one: -one[0])[:FIRED]]}
        for token, own in zip(ids, strongest, strict=True)
    ]  # fmt: skip


def _browsed(run: Run) -> dict[str, Shown]:
    """The dictionaries that a run's browser shows."""
    run.finished(KEY, "sparsecode browse")
    require(run, [KEY])
    config = BrowseConfig.recorded(run.config()["stages"][KEY], KEY)
    comparison = load_comparison(run, own=KEY)
    return _shown(run, comparison, *_named(run, config, comparison))


def _make(
    run: Run, config: BrowseConfig, comparison: Comparison, shown: dict[str, Shown], folder: Path, watch: Watch
) -> dict[str, Any]:
    dataset = store.Dataset(dataset_path(run, config.dataset))
    tokens = tokens_of(run)
    if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
        raise StageMissing(f"{dataset.path}: not harvested from this run's text; run: sparsecode harvest{run.flag}")
    check_width({name: own.dictionary for name, own in shown.items()}, dataset)
    hook, ways, why = str(dataset.provenance.get("hook_point", "")), {}, ""
    if config.effects != "none":
        try:
            ways = _ways(_model(run, config, dataset, watch), hook, config.effects, tokens)
        except SparsecodeError as error:
            why = told(error)
            watch.note(f"{KEY}: {why}")
    about = {
        "subtitle": f"Features at {hook} of {dataset.provenance.get('model', 'a model')}, on the first "
                    f"{min(config.rows, dataset.rows):,} tokens.",
        "hook": hook,
        "model": str(dataset.provenance.get("model", "model")),
        "component": "neuron" if hook.endswith("mlp.hook_post") else "dimension",
        "labels": "by sparsecode interpret",
        "effects": {way: _WORDS[way] for way in ways},
        "no_effects": why,
        "sparsecode_version": versions().get("sparsecode"),
        "dataset_fingerprint": dataset.fingerprint,
        "tokens_fingerprint": tokens.fingerprint,
        "model_fingerprint": dataset.provenance.get("model_fingerprint"),
    }  # fmt: skip
    texts = token_table(tokens.tokenizer, vocabulary_size(tokens.tokenizer))
    found = browse(folder, dataset, texts, shown, config.part(BrowseSettings), about, effects=ways,
                   threshold=comparison.threshold, watch=watch)  # fmt: skip
    return {"page": f"{KEY}/{PAGE}"} | found | {"missing": {"effects": why} if why else {}}


def _named(run: Run, config: BrowseConfig, comparison: Comparison) -> tuple[list[str], list[str], list[str]]:
    """Names of trained dictionaries, of baselines, and paths of others that are asked for."""
    trained = [entry.name for entry in comparison.entries]
    baselines = [row["name"] for row in (load_baselines(run) or {}).get("baselines", ())]
    if config.dictionaries is None:
        return trained, baselines, []
    asked = list(dict.fromkeys(one.strip() for one in config.dictionaries.split(",") if one.strip()))

    def among(names: list[str]) -> list[str]:
        return [name for name in names if any(fnmatchcase(name, one) for one in asked)]

    others = [one for one in asked if not any(fnmatchcase(name, one) for name in [*trained, *baselines])]
    return among(trained), among(baselines), others


def _shown(
    run: Run, comparison: Comparison, names: list[str], baselines: list[str], others: list[str]
) -> dict[str, Shown]:
    record = load_interpretations(run) or {}
    labels: dict[str, dict[int, tuple[str, float | None]]] = {}
    for one in record.get("directions", ()):
        if "text" in one:
            labels.setdefault(one["dictionary"], {}).setdefault(
                one["feature"], (one["text"], round(one["scores"]["correlation"], 3))
            )
    again, among = comparison.found_again(), len(comparison.names) - 1
    shown = {name: Shown(Dictionary.load(run.dictionaries_path / name), TRAINED, labels.get(name, {}), again[name],
                         among) for name in names}  # fmt: skip
    for name in baselines:
        shown[name] = Shown(Dictionary.load(run.path / "baselines" / name), BASELINE, labels.get(name, {}))
    for path in others:
        shown[path] = Shown(load_dictionary(path), OTHER, labels.get(path, {}))
    return shown


def _model(run: Run, config: BrowseConfig, dataset: store.Dataset, watch: Watch) -> LanguageModel:
    """The model whose activations these are.

    Raises:
        StageMissing: it is not there, or not known.
        SparsecodeError: it cannot be loaded.
    """
    wanted = dataset.provenance.get("model_fingerprint")
    stages = run.config()["stages"]
    record = stages.get(f"harvest/{dataset.path.name}", {})
    if config.model is None and (stages.get("train-gpt", {}).get("result") or {}).get("fingerprint") == wanted:
        return own_model(load_gpt(run.gpt_path), device="cpu")
    name = config.model or (record.get("beside") or {}).get("model")
    if name is None or (config.model is None and not Path(name).is_dir()):
        raise StageMissing(f"effects on the logits need the model{f' {name}' if name else ''}; name it with --model")
    model = load_model(name, device="cpu", watch=watch)
    if model.fingerprint != wanted:
        raise StageMissing(f"{name}: is not the model whose activations {dataset.path} holds; name that with --model")
    return model


def _ways(model: LanguageModel, hook: str, asked: str, tokens: Tokens) -> dict[str, EffectsOf]:
    """How effects of atoms are found, by the name of the way; without a direct path only the measured one.

    Raises:
        HookUnknown: there is no direct path, and no other way was asked for.
    """
    ids = _held_out(tokens)
    found: dict[str, EffectsOf] = {}
    try:
        path = acting.direct_path(model, hook, ids)
        found["direct"] = lambda atoms, advance: acting.direct(path, atoms, LOGITS, advance)
    except SparsecodeError:
        if asked == "direct":
            raise
    if asked == "causal":

        def measured(atoms: Tensor, advance: Callable[[int], Any]) -> acting.Effects:
            return acting.causal(model, hook, atoms, ids, LOGITS, advance)

        found["causal"] = measured
    return found


def _held_out(tokens: Tokens) -> Tensor:
    """[P, T] tokens from evenly spread places of the held-out text."""
    side = tokens.val if len(tokens.val) >= TOKENS else tokens.train
    starts = np.linspace(0, max(0, len(side) - TOKENS), POSITIONS).astype(np.int64)
    return torch.from_numpy(np.stack([side[start : start + TOKENS] for start in starts]).astype(np.int64))
