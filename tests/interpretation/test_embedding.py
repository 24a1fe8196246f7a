"""The example-embedding score with an encoder that knows words and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from planted_text import TEXTS, fires, noise, planted_dataset
from sparsecode.errors import ModelInvalid
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.models import own_model
from sparsecode.interpretation.embedding import Embedder, embedding_score, embedding_scores
from sparsecode.interpretation.examples import Material, material
from sparsecode.interpretation.groups import Direction
from sparsecode.interpretation.sample import draw

SAMPLE = draw(DATASET := planted_dataset(), 10**9, 0)
ONE = Direction("features", "d", 0)


def excerpts(z: np.ndarray) -> Material:
    found = material(ONE, z, SAMPLE, lambda ids, _: [TEXTS[i] for i in ids], 0)
    assert isinstance(found, Material)
    return found


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """A GPT that was never trained, whose values after the last block are still those of the tokens."""
    words = ["?", *dict.fromkeys(text.strip() or text for text in TEXTS)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    gpt = GPT(GPTConfig(vocab_size=len(words), n_layer=2, n_head=2, d_model=64, d_mlp=32, context=64), seed=0)
    return Embedder(own_model(gpt, device="cpu", tokenizer=tokenizer.to_str()))


def test_excerpts_of_planted_rules_are_alike_and_of_noise_are_not(embedder: Embedder) -> None:
    rules = ("number", "token self")  # what tokens alone show, as the model was never trained
    planted = [embedding_score(embedder, excerpts(fires(DATASET, rule).astype(np.float64))) for rule in rules]
    assert np.mean(planted) > 0.65
    by_chance = [embedding_score(embedder, excerpts(noise(SAMPLE.rows, i).astype(np.float64))) for i in range(10)]
    assert 0.4 < np.mean(by_chance) < 0.6


def test_an_embedding_depends_on_its_text_alone(embedder: Embedder) -> None:
    texts = ["self ( import )", "walk", "self , self NATO XY", "", "self " * 100]
    together = embedder.embed(texts)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together[:3], axis=1), 1, atol=1e-5)


def test_directions_without_excerpts_have_no_score(embedder: Embedder) -> None:
    own = excerpts(noise(SAMPLE.rows, 0).astype(np.float64))
    assert embedding_scores(embedder, {ONE: own, Direction("features", "d", 1): "why"}).keys() == {ONE}


def test_what_is_no_sentence_encoder(embedder: Embedder) -> None:
    with pytest.raises(ModelInvalid, match="no tokenizer or no blocks"):
        Embedder(dataclasses.replace(embedder.model, tokenizer=None))
    with pytest.raises(ModelInvalid, match="no tokenizer or no blocks"):
        Embedder(dataclasses.replace(embedder.model, taps={}))
