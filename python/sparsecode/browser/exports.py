"""What a browser's folder shows, in the files of SAEDashboard 0.8 and of Neuronpedia's bulk import.

OUT/SLUG/batch-N.json, skipped_indexes.json                     what SAEDashboard's Neuronpedia runner writes
OUT/MODEL/LAYER-SET/{release,model,sourceset,source}.jsonl      what a Neuronpedia imports
OUT/MODEL/LAYER-SET/{features,activations,explanations}/batch-N.jsonl.gz

Both are key by key what SAEDashboard writes of the same features, ids and dates aside.
Values are 8-bit strengths times the peak, but for the token that a context was chosen for. What is not known is an
empty list or null. All lines of a .jsonl file have the same keys: Neuronpedia takes its columns from the first.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from sparsecode.browser import folder as files
from sparsecode.browser.gather import FULL, WIDTH
from sparsecode.browser.texts import side_by_side
from sparsecode.checkpoint import write_bytes, write_json
from sparsecode.dictionary import Dictionary
from sparsecode.errors import NotExpressible

BATCH = 128  # features of a file
_ALIGNED = 3  # components and features listed, as SAEDashboard does
_KIND = "sparsecode-rules"


@dataclass(frozen=True, eq=False)
class Book:
    """A folder that is read again.

    Attributes:
        folder: with `index.html`.
        run: the content of run.js.
        texts: of all tokens.
    """

    folder: Path
    run: Mapping[str, Any]
    texts: list[Any]

    @classmethod
    def open(cls, folder: Path) -> Book:
        """Reads what all dictionaries share."""
        run = files.read(folder, "run")
        return cls(
            folder, run, [text for part in range(run["tokens"]) for text in files.read(folder, f"tokens-{part}")]
        )

    @property
    def place(self) -> tuple[int, str]:
        """Layer, and the hook point within its block.

        Raises:
            NotExpressible: the hook point is in no block.
        """
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", self.run["hook"])
        if found is None:
            raise NotExpressible(f"{self.run['hook']}: is in no block, and these files want a layer")
        return int(found[1]), found[2]

    def features(self, about: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each feature's row of the list, and all that is shown of it."""
        for part in range(about["lists"]):
            columns = files.read(self.folder, f"{about['slug']}/list-{part}")["columns"]
            for start in range(0, len(columns["feature"]), files.SHARD):
                shard = (part * files.LISTED + start) // files.SHARD
                for offset, record in enumerate(files.read(self.folder, f"{about['slug']}/{shard:04d}")):
                    yield {key: own and own[start + offset] for key, own in columns.items()}, record

    def feature(self, row: Mapping[str, Any], record: Mapping[str, Any], own: Dictionary) -> dict[str, Any]:
        """A feature as SAEDashboard's `NeuronpediaDashboardFeature` has it."""
        f, peak, counts = record["f"], row["peak"], record["h"]
        atom = own.W_dec[f]
        up, ups, down, downs = next(iter(record["e"].values()), ([], [], [], []))
        among = record["t"][:_ALIGNED]
        unit, *others = torch.nn.functional.normalize(own.W_dec[[f, *(i for i, _ in among)]], dim=1)
        beside, made = record["v"][:_ALIGNED], record["u"][:_ALIGNED]
        bands, total = len(record["b"]), sum(counts)
        groups = [(-1.0, float(peak), -1.0, record["s"])]
        per = len(counts) // bands
        for band in reversed(range(bands)):
            share = sum(counts[per * band : per * (band + 1)]) / max(total, 1)
            groups.append((peak * band / bands, peak * (band + 1) / bands, share, record["b"][band]))
        return {
            "feature_index": f,
            "neuron_alignment_indices": [i for i, _ in made],
            "neuron_alignment_values": _round(float(atom[i]) for i, _ in made),
            "neuron_alignment_l1": _round(abs(share) for _, share in made),
            "correlated_neurons_indices": [i for i, _ in beside],
            "correlated_neurons_l1": _round(float(unit[i]) if i < len(unit) else 0.0 for i, _ in beside),
            "correlated_neurons_pearson": _round(value for _, value in beside),
            "correlated_features_indices": [i for i, _ in among],
            "correlated_features_l1": _round(float(unit @ other) for other in others),
            "correlated_features_pearson": _round(value for _, value in among),
            "neg_str": [self.text([one]) for one in down],
            "neg_values": _round(downs),
            "pos_str": [self.text([one]) for one in up],
            "pos_values": _round(ups),
            "frac_nonzero": total / max(self.run["rows"], 1),
            "freq_hist_data_bar_values": _round(peak * (i + 0.5) / len(counts) for i in range(len(counts))),
            "freq_hist_data_bar_heights": [float(count) for count in counts],
            "logits_hist_data_bar_heights": [],
            "logits_hist_data_bar_values": [],
            "n_prompts_total": self.run["rows"] // WIDTH,
            "n_tokens_in_prompt": WIDTH,
            "dataset": str(self.run.get("dataset_fingerprint") or ""),
            "decoder_weights_dist": [],
            "activations": [
                self._activation(one, peak, round(low, 5), round(high, 5), round(share, 5))
                for low, high, share, some in groups
                for one in some
            ],
            "vector": _round(atom.tolist()),
        }

    def text(self, ids: Iterable[int]) -> str:
        """The text of tokens, without the zero byte."""
        return "".join(side_by_side(self.texts, list(ids))).replace("\0", "\ufffd")

    def _activation(self, one: list[Any], peak: float, low: float, high: float, share: float) -> dict[str, Any]:
        _, code, before, ids, strengths = one
        values = [round(strength * peak / FULL, 5) for strength in bytes.fromhex(strengths)]
        values[before] = round(code, 5)
        return {
            "bin_min": low, "bin_max": high, "bin_contains": share,
            "tokens": [text.replace("\0", "\ufffd") for text in side_by_side(self.texts, ids)],
            "values": values, "qualifying_token_index": before,
        }  # fmt: skip


def export_saedashboard(book: Book, dictionaries: Mapping[str, Dictionary], out: Path) -> list[Path]:
    """Writes batches of every dictionary of a folder, which are given by slug; returns the folders."""
    layer, _ = book.place
    written = []
    for about in book.run["dictionaries"]:
        home, own = out / about["slug"], dictionaries[about["slug"]]
        for number, batch in enumerate(_batches(book, about, own)):
            write_json(home / f"batch-{number}.json", {
                "model_id": _id(book.run["model"]), "layer": layer, "sae_set": about["slug"], "sae_id_suffix": None,
                "features": [feature for feature, _ in batch],
            })  # fmt: skip
        dead = sorted(set(range(about["size"])) - {row["feature"] for row, _ in book.features(about)})
        write_json(home / "skipped_indexes.json", {"skipped_indexes": dead})
        written.append(home)
    return written


def export_neuronpedia(
    book: Book, dictionaries: Mapping[str, Dictionary], out: Path, *, created: str, creator: str = "sparsecode"
) -> list[Path]:
    """Writes a source for every dictionary of a folder, which are given by slug; returns the folders.

    Args:
        book: what is exported.
        dictionaries: by slug.
        out: where to.
        created: the date that all lines have, as 2026-01-31T12:00:00Z.
        creator: the id that all lines have.
    """
    layer, place = book.place
    model, written = _id(book.run["model"]), []
    for about in book.run["dictionaries"]:
        own, name = dictionaries[about["slug"]], _id(f"{place}-{about['slug']}")
        source = f"{layer}-{name}"
        home = out / model / source
        by = {"creatorId": creator, "createdAt": created}
        for kind, line in _heads(book, about, model, name, source, own, by).items():
            write_bytes(home / f"{kind}.jsonl", _lines([line]))
        common = {"modelId": model, "layer": source}
        for number, batch in enumerate(_batches(book, about, own)):
            features, activations, explanations = [], [], []
            for feature, label in batch:
                f = feature["feature_index"]
                features.append(common | {"index": f} | by | _np_feature(feature, book.run["hook"]))
                for place_, one in enumerate(feature["activations"]):
                    key = _unique(model, source, str(f), str(place_))
                    activations.append(common | {"id": key, "index": f} | by | _np_activation(one))
                if label:
                    said: dict[str, Any] = {
                        "id": _unique(model, source, str(f), "label"), "index": f,
                        "description": label.replace("\0", "\ufffd"),
                        "authorId": creator, "triggeredById": creator, "typeName": _KIND, "explanationModelName": None,
                        "notes": None, "createdAt": created,
                    }  # fmt: skip
                    explanations.append(common | said)
            for kind, lines in (("features", features), ("activations", activations), ("explanations", explanations)):
                write_bytes(home / kind / f"batch-{number}.jsonl.gz", gzip.compress(_lines(lines), mtime=0))
        written.append(home)
    return written


def _batches(book: Book, about: Mapping[str, Any], own: Dictionary) -> Iterator[list[tuple[dict[str, Any], str]]]:
    batch: list[tuple[dict[str, Any], str]] = []
    for row, record in book.features(about):
        batch.append((book.feature(row, record, own), row["label"]))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _np_feature(feature: Mapping[str, Any], hook: str) -> dict[str, Any]:
    """Columns of a feature that its dashboard does not name alike."""
    left = ("feature_index", "n_prompts_total", "n_tokens_in_prompt", "dataset", "activations", "vector")
    peak = max((max(one["values"]) for one in feature["activations"]), default=0)
    return {
        "maxActApprox": peak, "hasVector": True, "vector": feature["vector"], "vectorLabel": None,
        "vectorDefaultSteerStrength": peak, "hookName": hook, "topkCosSimIndices": [], "topkCosSimValues": [],
        "sourceSetName": None,
    } | {key: value for key, value in feature.items() if key not in left}  # fmt: skip


def _np_activation(one: Mapping[str, Any]) -> dict[str, Any]:
    values = one["values"]
    return {
        "tokens": one["tokens"], "values": values, "maxValue": max(values), "minValue": min(values),
        "maxValueTokenIndex": values.index(max(values)), "dataSource": None, "dataIndex": None, "dfaValues": [],
        "dfaTargetIndex": None, "dfaMaxValue": None, "lossValues": [], "logitContributions": None,
        "binMin": one["bin_min"], "binMax": one["bin_max"], "binContains": one["bin_contains"],
        "qualifyingTokenIndex": one["qualifying_token_index"], "zIndices": None, "zValues": None,
    }  # fmt: skip


def _heads(
    book: Book, about: Mapping[str, Any], model: str, name: str, source: str, own: Dictionary, by: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The lines that say what a source is."""
    release = _id(f"sparsecode-{name}")
    seen = {"visibility": "UNLISTED"}
    at = {"createdAt": by["createdAt"]}
    who = {"creatorId": by["creatorId"], "creatorName": by["creatorId"], "creatorEmail": ""}
    layer, _ = book.place
    return {
        "release": {
            "name": release, "description": book.run["subtitle"], "descriptionShort": about["name"], "urls": [],
            "creatorNameShort": by["creatorId"], "isNewUi": True, "featured": False, "defaultSourceSetName": name,
            "defaultSourceId": source, "defaultUmapSourceIds": [],
        } | who | seen | at,
        "model": {
            "id": model, "instruct": False, "creatorId": by["creatorId"], "displayNameShort": model,
            "displayName": model, "tlensId": None, "dimension": own.activation_dim, "defaultSourceSetName": name,
            "defaultSourceId": source, "inferenceEnabled": False, "layers": layer + 1,
            "neuronsPerLayer": own.activation_dim, "owner": by["creatorId"], "updatedAt": by["createdAt"],
            "website": None,
        } | seen | at,
        "sourceset": {
            "modelId": model, "name": name, "hasDashboards": True, "description": about["name"],
            "type": about["activation"], "urls": [], "releaseName": release, "defaultOfModelId": None,
            "defaultRange": 1, "defaultShowBreaks": True, "showDfa": False, "showCorrelated": True,
            "showHeadAttribution": False, "showUmap": False,
        } | who | seen | at,
        "source": {
            "id": source, "modelId": model, "setName": name, "creatorId": by["creatorId"], "hasDashboards": True,
            "inferenceEnabled": False, "inferenceHosts": [], "saelensConfig": None, "saelensRelease": None,
            "saelensSaeId": None, "hfRepoId": None, "hfFolderId": None, "defaultOfModelId": None, "hasUmap": False,
            "hasUmapLogSparsity": False, "hasUmapClusters": False, "num_prompts": book.run["rows"] // WIDTH,
            "num_tokens_in_prompt": WIDTH, "dataset": str(book.run.get("dataset_fingerprint") or ""), "notes": None,
        } | seen | at,
    }  # fmt: skip


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _round(values: Iterable[float | None]) -> list[float]:
    return [round(float(value or 0), 5) for value in values]


def _id(text: str) -> str:
    """A name of letters, digits, - and _, as Neuronpedia wants them."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def _unique(*parts: str) -> str:
    """An id of 25 characters."""
    return "c" + blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
