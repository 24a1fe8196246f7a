"""What SAEDashboard makes of a folder of ours: the committed tests/fixtures/neuronpedia.

    PYTHONPATH=python:tests/support python tests/peers/make_dashboards.py SAEDASHBOARD FOLDER

SAEDASHBOARD is a checkout of jbloomAus/SAEDashboard (0.8.0; the fixtures were made at commit db4839a): the release on
PyPI lacks `neuronpedia_export`. Needs orjson.

FOLDER/batch-0.json                       our batch, read and written again by `NeuronpediaDashboardBatch`
FOLDER/{features,activations}.jsonl       what `export_neuronpedia_dashboards` makes of our batch, without ids and dates
FOLDER/keys.json                          the keys of its other files
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import tempfile
from pathlib import Path

import small_book
from sparsecode.browser.exports import Book, export_saedashboard


def main() -> None:
    checkout, out = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(checkout / "sae_dashboard/neuronpedia"))  # without what the package itself imports
    export, dashboard = (importlib.import_module(f"neuronpedia_{name}") for name in ("export", "dashboard"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        own = small_book.write(Path(scratch) / "browse")
        (batches,) = export_saedashboard(Book.open(Path(scratch) / "browse"), own, Path(scratch) / "batches")
        batch = dashboard.NeuronpediaDashboardBatch(**json.loads((batches / "batch-0.json").read_text()))
        (out / "batch-0.json").write_text(json.dumps(batch.to_dict(), indent=1) + "\n")
        config = export.NeuronpediaExportConfig(
            saedashboard_output_dir=str(batches), exports_dir=scratch, creator_name="sparsecode",
            creator_id="sparsecode", release_id="sparsecode-mlp-hook_post-n2", release_title="Features of a test.",
            url="", model_name="sparsecode-gpt", neuronpedia_source_set_id="mlp-hook_post-n2",
            neuronpedia_source_set_description="n2_s0", hf_weights_repo_id="", hf_weights_path="",
            hook_point="mlp.hook_post", layer_num=2, prompts_huggingface_dataset_path="abc", n_prompts_total=1,
            n_tokens_in_prompt=1,
        )  # fmt: skip
        made = Path(export.export_neuronpedia_dashboards(config))
        for kind in ("features", "activations"):
            lines = gzip.decompress((made / kind / "batch-0.jsonl.gz").read_bytes()).splitlines()
            rows = [{key: own for key, own in json.loads(line).items() if key not in ("id", "createdAt")}
                    for line in lines]  # fmt: skip
            (out / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        keys = {name: sorted(json.loads((made / f"{name}.jsonl").read_text()))
                for name in ("release", "model", "sourceset", "source")}  # fmt: skip
        (out / "keys.json").write_text(json.dumps(keys, indent=1) + "\n")


if __name__ == "__main__":
    main()
