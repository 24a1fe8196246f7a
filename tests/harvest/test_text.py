"""The text of a model in its own tokens: which special tokens are read in it, what ends a document, conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sparsecode.cli import main
from sparsecode.corpus import load_tokens
from sparsecode.errors import CorpusUnreadable, InvalidSetting, ModelInvalid, SettingsDiffer, TokensUnknown
from sparsecode.harvest import harvest_module
from sparsecode.harvest.models import LanguageModel, load_model
from sparsecode.harvest.models.ids import embedded
from sparsecode.pipeline.eval import evaluate_run
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.run import Run
from sparsecode.store import Dataset
from sparsecode.sweep import Dictionary

transformers = pytest.importorskip("transformers")

HOOK = "blocks.0.hook_resid_pre"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BEGUN = "{{ bos_token }}" + TEMPLATE
TALKS = [
    [{"role": "user", "content": f"How many dogs, {number}?"}, {"role": "assistant", "content": "Two" * (number % 3)}]
    for number in range(20)
]


def tokenizer(*special: str, template: str | None = None, frame: str | None = None, **names: str) -> Any:
    """A byte-level BPE with special tokens, as transformers has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=list(special), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator(["How many dogs? user assistant Two dogs and a fox."], trainer)
    if frame:
        made.post_processor = processors.TemplateProcessing(
            single=frame, special_tokens=[(name, made.token_to_id(name)) for name in special]
        )
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    if template:
        found.chat_template = template
    return found


def model(folder: Path, tokens: Any | None, size: int = 300) -> str:
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=8, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    if tokens is not None:
        tokens.save_pretrained(folder)
    return str(folder)


def chat_tokenizer(template: str = TEMPLATE, **names: str) -> Any:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return tokenizer(*special, template=template, **({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | names))


def lines(path: Path, key: str, values: list[Any]) -> str:
    path.write_text("\n".join(json.dumps({key: value}) for value in values))
    return str(path)


def harvested(folder: Path, name: str, text: str, **settings: Any) -> Dataset:
    usual: dict[str, Any] = {"special_tokens": True, "rows": 10**6, "dtype": "float32", "context": 48, "hook": HOOK}
    settings = usual | settings
    harvest_activations(folder, model=name, text=(text,), device="cpu", quiet=True, **settings)
    return Dataset(folder / "activations" / HOOK)


def documents(folder: Path) -> list[list[int]]:
    """Documents of a run, both sides, in a fixed order, without what is between them."""
    tokens = load_tokens(Run(folder))
    found = []
    for side in (tokens.train, tokens.val):
        found += [ids[:-1].tolist() for ids in np.split(side, np.flatnonzero(side == tokens.eot) + 1)[:-1]]
    return sorted(found)


def test_text_that_the_template_made_has_the_tokens_of_the_models_tokenizer(tmp_path: Path) -> None:
    tok = chat_tokenizer()
    texts = [tok.apply_chat_template(talk, tokenize=False) for talk in TALKS]
    name, file = model(tmp_path / "chat", tok), lines(tmp_path / "chat.jsonl", "text", texts)
    dataset = harvested(tmp_path / "run", name, file, documents=True)
    assert documents(tmp_path / "run") == sorted(tok(text)["input_ids"] for text in texts)
    assert {tok.convert_tokens_to_ids(one) for one in ("<|im_start|>", "<|im_end|>")} <= set(
        dataset.tokens(0, dataset.rows).tolist()
    )
    # Between documents stands a token of the tokenizer, though it stands within them as well.
    stream = harvested(tmp_path / "packed", name, file, documents=False)
    assert int(stream.tokens(0, stream.rows).max()) < len(tok)
    left = harvested(tmp_path / "left", name, file, special_tokens=False)
    assert not set(left.tokens(0, left.rows).tolist()) & set(tok.all_special_ids)


def test_which_control_tokens_are_read_is_a_setting_and_told(tmp_path: Path) -> None:
    tok = chat_tokenizer()
    name, file = model(tmp_path / "chat", tok), lines(tmp_path / "a.jsonl", "text", ["<|im_start|>a<|im_end|>"] * 9)
    command = ["harvest", "--model", name, "--text", file, "--hook", HOOK, "--context", "8", "--documents",
               "--device", "cpu", "--rows", "10"]  # fmt: skip
    told = {
        "auto": "9 <|im_start|>, 9 <|im_end|> in the text read as control tokens (the model has a chat template;",
        "none": "9 <|im_start|>, 9 <|im_end|> in the text taken for ordinary text (--control-tokens none;",
        "<|im_end|>": "9 <|im_end|> in the text read as control tokens (--control-tokens; --control-tokens none takes "
        "them for text), 9 <|im_start|> in the text taken for ordinary text",
    }
    start, end = tok.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for number, (wanted, line) in enumerate(told.items()):
        run = tmp_path / f"run{number}"
        result = CliRunner().invoke(main, [*command, "--run", str(run), "--control-tokens", wanted])
        assert result.exit_code == 0, result.stderr
        assert sum(line in one for one in result.stderr.splitlines()) == 1, result.stderr
        (document, *_) = documents(run)
        assert (start in document, end in document) == {"auto": (True, True), "none": (False, False)}.get(
            wanted, (False, True)
        )
    with pytest.raises(InvalidSetting, match=r"has no special token 'fox'; it has <\|endoftext\|>, <\|im_start\|>"):
        harvested(tmp_path / "x", name, file, control_tokens="fox")
    with pytest.raises(SettingsDiffer, match="control_tokens"):
        harvested(tmp_path / "run0", name, file, control_tokens="none")


def test_without_a_template_a_spelled_token_is_text(tmp_path: Path) -> None:
    tok = tokenizer("<|endoftext|>", eos_token="<|endoftext|>")
    name, file = model(tmp_path / "base", tok), lines(tmp_path / "a.jsonl", "text", ["a<|endoftext|>b"] * 9)
    harvested(tmp_path / "run", name, file)
    assert all(0 not in document for document in documents(tmp_path / "run"))
    harvested(tmp_path / "all", name, file, control_tokens="all", context=8)
    assert documents(tmp_path / "all") == [tok("a<|endoftext|>b")["input_ids"]] * 9


def test_conversations_are_evaluated_as_the_text_that_the_template_makes_of_them(tmp_path: Path) -> None:
    tok = chat_tokenizer()
    name = model(tmp_path / "chat", tok)
    talks = lines(tmp_path / "talks.jsonl", "talk", TALKS)
    texts = [tok.apply_chat_template(talk, tokenize=False) for talk in TALKS]
    text = lines(tmp_path / "text.jsonl", "text", texts)
    eye = torch.cat([torch.eye(8), -torch.eye(8)])
    given = {"eye": Dictionary(eye, torch.zeros(16), eye)}
    settings: dict[str, Any] = {"hook": HOOK, "context": 48, "documents": True, "special_tokens": True, "device": "cpu"}

    def losses(file: str, **more: Any) -> tuple[int, float]:
        (found,) = evaluate_run(tmp_path / "run", given, model=name, text=(file,), quiet=True, **settings, **more)
        return found.predictions, found.loss_clean

    talked = losses(talks, chat=True, text_key="talk")
    assert talked == losses(text)
    assert losses(text, control_tokens="none")[0] > talked[0], "each control token is then several of ordinary text"
    with pytest.raises(InvalidSetting, match="eval: --chat goes with --text"):
        evaluate_run(tmp_path / "run", given, model=name, chat=True, quiet=True, **settings)
    with pytest.raises(InvalidSetting, match="--chat: the tokenizer of base has no chat template"):
        base = model(tmp_path / "base", tokenizer("<|endoftext|>", eos_token="<|endoftext|>"))
        evaluate_run(tmp_path / "run", given, model=base, text=(talks,), chat=True, quiet=True, **settings)


@pytest.mark.parametrize("name", ["<END>", "</s>", "[SEP]"])
def test_a_document_ends_with_the_tokenizers_own_token(name: str, tmp_path: Path) -> None:
    tok = tokenizer("<x>", name, **({"sep_token": name} if name == "[SEP]" else {"eos_token": name}))
    file = lines(tmp_path / "a.jsonl", "text", ["a fox"] * 30)
    dataset = harvested(tmp_path / "run", model(tmp_path / "model", tok), file)
    ids = dataset.tokens(0, dataset.rows).tolist()
    assert tok.convert_tokens_to_ids(name) in ids
    assert max(ids) < len(tok)
    assert load_tokens(Run(tmp_path / "run")).eot == tok.convert_tokens_to_ids(name)


def test_a_tokenizer_without_an_end_gets_none_that_the_model_might_take_for_another(tmp_path: Path) -> None:
    tok = tokenizer("<x>")
    name, file = model(tmp_path / "model", tok, size=400), lines(tmp_path / "a.jsonl", "text", ["a fox"] * 30)
    with pytest.raises(InvalidSetting, match="its tokenizer has no token that ends a document; add --documents"):
        harvested(tmp_path / "run", name, file)
    dataset = harvested(tmp_path / "run", name, file, documents=True)
    assert int(dataset.tokens(0, dataset.rows).max()) < len(tok)


@pytest.mark.parametrize("template", [TEMPLATE, BEGUN])
def test_conversations_are_written_by_the_models_own_template(template: str, tmp_path: Path) -> None:
    tok = tokenizer(
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        template=template,
        frame="<s> $A",
        bos_token="<s>",
        eos_token="</s>",
    )
    name, file = model(tmp_path / "model", tok), lines(tmp_path / "talks.jsonl", "messages", TALKS)
    dataset = harvested(tmp_path / "run", name, file, chat=True, documents=True, context=64)
    expected = sorted(
        tok(tok.apply_chat_template(talk, tokenize=False), add_special_tokens=False)["input_ids"] for talk in TALKS
    )
    assert documents(tmp_path / "run") == expected
    begun = load_model(name, device="cpu").chat_frame.before
    assert begun == ((0,) if template == BEGUN else ())
    # Rows are the tokens of the conversations on the training side, their beginning once.
    tokens = load_tokens(Run(tmp_path / "run"))
    assert dataset.rows == np.count_nonzero(tokens.train != tokens.eot)
    assert dataset.provenance["chat"] is True
    other = lines(tmp_path / "other.jsonl", "talk", TALKS)
    with pytest.raises(CorpusUnreadable, match=r"line 1: no conversation under 'messages' \(found: talk\)"):
        harvested(tmp_path / "no", name, other, chat=True)
    harvested(tmp_path / "key", name, other, chat=True, text_key="talk")
    assert documents(tmp_path / "key") == expected


def test_conversations_need_a_template_that_takes_them(tmp_path: Path) -> None:
    file = lines(tmp_path / "talks.jsonl", "messages", TALKS)
    plain = model(tmp_path / "plain", tokenizer("<s>", eos_token="<s>"))
    with pytest.raises(InvalidSetting, match="--chat: the tokenizer of plain has no chat template"):
        harvested(tmp_path / "a", plain, file, chat=True)
    strict = chat_tokenizer("{{ raise_exception('no system role') }}")
    with pytest.raises(CorpusUnreadable, match=r"the chat template refuses this conversation \(no system role\)"):
        harvested(tmp_path / "b", model(tmp_path / "strict", strict), file, chat=True)
    (tmp_path / "prose.txt").write_text("words")
    with pytest.raises(CorpusUnreadable, match="prose, not conversations"):
        harvested(tmp_path / "c", str(tmp_path / "strict"), str(tmp_path / "prose.txt"), chat=True)


def test_a_tokenizer_without_letters_reads_its_own_alphabet(tmp_path: Path) -> None:
    names = ["<pad>", "<bos>", "<eos>", "A", "C", "G", "T", "N"]
    made = Tokenizer(models.BPE(vocab={name: token for token, name in enumerate(names)}, merges=[]))
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tok = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    name = model(tmp_path / "dna", tok, size=8)
    (tmp_path / "dna.txt").write_text("ACGTTGCANN" * 200)
    dataset = harvested(tmp_path / "run", name, str(tmp_path / "dna.txt"), context=16, special_tokens=False)
    assert set(dataset.tokens(0, dataset.rows).tolist()) == {3, 4, 5, 6, 7}
    assert load_model(name, device="cpu").frame.before == (1,)


def test_messages_on_tokenizers_name_the_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a fox " * 50)
    with pytest.raises(ModelInvalid, match="bare: no tokenizer") as raised:
        harvested(tmp_path / "a", model(tmp_path / "bare", None), str(tmp_path / "a.txt"))
    assert "tmp" not in str(raised.value)


def test_ids_beyond_the_embedding_are_hidden_or_told(tmp_path: Path) -> None:
    tok = tokenizer("<|endoftext|>", eos_token="<|endoftext|>")
    size = len(tok)
    tok.add_special_tokens({"pad_token": "[PAD]"})
    file = lines(tmp_path / "a.jsonl", "text", ["fox " * (number % 9 + 1) for number in range(40)])
    padded = harvested(tmp_path / "a", model(tmp_path / "pad", tok, size), file, documents=True)
    assert int(padded.tokens(0, padded.rows).max()) < size
    tok.add_tokens(["fox"])
    word = model(tmp_path / "word", tok, size)
    for documents_apart in (True, False):
        with pytest.raises(
            TokensUnknown, match=rf"word: no embedding for the token 'fox' \({size + 1}\), it has {size}; "
        ):
            harvested(tmp_path / f"b{documents_apart}", word, file, documents=documents_apart)
    assert harvested(tmp_path / "c", word, lines(tmp_path / "b.jsonl", "text", ["a dog"] * 40)).rows  # nothing needs it
    begun = tokenizer("<|endoftext|>", eos_token="<|endoftext|>")
    begun.add_special_tokens({"bos_token": "<s>"})
    begun.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begun.convert_tokens_to_ids("<s>"))]
    )
    with pytest.raises(TokensUnknown, match="no embedding for the token '<s>'"):
        harvested(tmp_path / "d", model(tmp_path / "begun", begun, size), file)


def test_ids_given_from_python_are_checked(tmp_path: Path) -> None:
    found: LanguageModel = load_model(model(tmp_path / "model", None, 20), device="cpu")
    ids, mask = torch.tensor([[1, 2, 99], [1, 19, 3]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert embedded("x", ids, 20, mask).tolist() == [[1, 2, 0], [1, 19, 3]]
    assert found.read({"input_ids": ids, "attention_mask": mask}, [HOOK])[HOOK].shape == (2, 3, 8)
    for wrong in (ids, torch.tensor([[1, -100, 3]])):
        with pytest.raises(TokensUnknown, match=r"no embedding for token (99|-100), it has 20"):
            found.logits({"input_ids": wrong})
        with pytest.raises(TokensUnknown, match="GPT2LMHeadModel: no embedding for token"):
            harvest_module(found.module, [{"input_ids": wrong}], {"transformer.h.0": tmp_path / "out"})
    datasets = harvest_module(
        found.module, [{"input_ids": ids, "attention_mask": mask}], {"transformer.h.0": tmp_path / "out"}
    )
    assert datasets["transformer.h.0"].rows == 5


def test_code_of_a_folder_is_never_asked_about(tmp_path: Path) -> None:
    name = model(tmp_path / "remote", tokenizer("<|endoftext|>", eos_token="<|endoftext|>"))
    config = json.loads((tmp_path / "remote/config.json").read_text())
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').write('x')\nfrom transformers import GPT2Config\n"
    code += "class C(GPT2Config):\n    model_type = 'mine'\n"
    for file in ("configuration_x.py", "modeling_x.py", "tokenization_x.py"):
        (tmp_path / "remote" / file).write_text(code)
    maps = {"AutoConfig": "configuration_x.C", "AutoModelForCausalLM": "modeling_x.M", "AutoModel": "modeling_x.M"}
    (tmp_path / "a.txt").write_text("a fox " * 50)
    for kind in ("mine", "gpt2"):
        (tmp_path / "remote/config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": maps}))
        about = json.loads((tmp_path / "remote/tokenizer_config.json").read_text())
        about |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["tokenization_x.C", "tokenization_x.C"]}}
        (tmp_path / "remote/tokenizer_config.json").write_text(json.dumps(about))
        command = ["harvest", "--run", str(tmp_path / kind), "--model", name, "--hook", HOOK, "--rows", "10",
                   "--text", str(tmp_path / "a.txt"), "--device", "cpu"]  # fmt: skip
        result = CliRunner().invoke(main, command, input="y\ny\ny\n")
        assert not ran.exists()
        assert "[y/N]" not in result.output
        assert (result.exit_code, len(result.stderr.strip().splitlines())) == (3, 1) or kind == "gpt2"


def test_a_configuration_names_no_kernels_of_the_hub(tmp_path: Path) -> None:
    name = model(tmp_path / "model", None)
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"attn_implementation": "someone/attention"}))
    found: Any = load_model(name, device="cpu").module
    assert found.config._attn_implementation in ("sdpa", "eager")
