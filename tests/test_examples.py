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
