"""The scripts in examples/ run, on small models of the kind they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_real_model_from_end_to_end(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text(" ".join(f"word {number * word} of {word}." for word in range(400)))
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([file.read_text() for file in sorted(texts.iterdir())], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path / "model"
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=200, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=16, max_position_embeddings=128)  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    given = ["--model", "model", "--text", "texts", "--layer", "1", "--rows", "8000", "--samples", "20000"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/real_model.py"), *given],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for step in ("harvest", "train on the MLP", "compare", "eval", "report"):
        assert f" s  {step}" in done.stdout
    assert "n512_" in done.stdout
    assert (tmp_path / "minilm-run/report.html").is_file()


def test_the_slurm_script_starts_parts_and_ranks(tmp_path: Path) -> None:
    for name in ("sparsecode", "torchrun"):
        (tmp_path / name).write_text('#!/bin/bash\necho "$(basename "$0") $*"\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8",
           "SLURM_GPUS_ON_NODE": "4"}  # fmt: skip
    script = str(ROOT / "examples/slurm.sbatch")
    said = [subprocess.run(["bash", script, what], env=env, check=True, capture_output=True, text=True).stdout
            for what in ("harvest", "train")]  # fmt: skip
    assert said == [
        "sparsecode harvest --run sparsecode-run --layer 2 --part 3/8\n",
        "torchrun --standalone --nproc-per-node 4 -m -- sparsecode train-dicts --run sparsecode-run --sizes 64-4096\n",
    ]
    assert subprocess.run(["bash", script, "x"], env=env, check=False, capture_output=True).returncode == 2


# Smaller values for the cell of parameters; everything else runs as it is written.
FIXTURES = ROOT / "tests/fixtures/interop"
NOTEBOOKS = {
    "seed_experiment": f"""
run = "small"
gpt = {{"text": ({str(ROOT / "docs")!r},), "vocab_size": 512, "n_layer": 3, "context": 64, "batch_size": 16,
       "steps": 30}}
rows = 20_000
dictionaries = {{"sizes": "32-128", "seeds": 2, "samples": 40_000, "batch_size": 512, "eval_rows": 2048}}
claims = {{"sizes": "16,32,64", "samples": 20_000, "start_samples": 20_000, "directions": 12, "draws": 200}}
toy = {{"dim": 16, "true_features": 32, "active": 3.0, "sizes": "1x-2x", "l1": "1e-3:1e-2:2", "steps": 100,
       "batch_size": 256, "eval_rows": 2048}}
""",
    "own_model": "epochs, copies, sizes, l1, samples = 5, 5, [16, 32], [1e-2], 50_000\n",
    "compare_downloaded": f"""
paths = {{name: {str(FIXTURES)!r} + "/" + name for name in ("saelens-standard", "sparsify-topk", "llamascopium-relu")}}
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run_at_reduced_size(name: str, tmp_path: Path) -> None:
    before, mark, cell = (ROOT / f"examples/{name}.py").read_text().partition('# %% tags=["parameters"]\n')
    script = tmp_path / f"{name}.py"
    script.write_text(before + mark + NOTEBOOKS[name] + cell[cell.index("\n# %%") :])
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_every_example_is_tested() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == {"real_model", *NOTEBOOKS}
