"""Every setting of every stage, each with its reason and its limits; presets and flags change them."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from sparsecode.pipeline.settings import OF_KINDS, SEEDS, StageConfig, setting

_seed = partial(setting, 0, below=SEEDS)
_device = partial(setting, "auto", "cpu, cuda, mps, or auto: the fastest here.")
_threads = partial(setting, None, "Threads; default: all cores.", min=1, affects_result=False, remembered=False)
_count = partial(setting, min=1)
_positive = partial(setting, above=0)
_list = partial(setting, several=True)
_every = partial(setting, min=1, affects_result=False)
_text_key = partial(
    setting, "text", "Key or column of the text in tables (JSON, CSV, parquet, arrow); input_ids for ids that the "
    "tokenizer made.",
)  # fmt: skip
_hf_stream = partial(
    setting, False, "Read the first --max-text-mb of --hf-dataset as a stream, without downloading all."
)
_skip_bad = partial(setting, False, "Skip and count unreadable files instead of stopping.")
_max_text_mb = partial(setting, None, "Use at most this many MB of text (a fixed choice of documents).", min=1)

# How dictionaries begin, of a sweep and of toy models alike; see docs/recipe.md.
_start = partial(
    setting, "calibrated", "calibrated: a short, whitened encoder, biases with which every feature fires; atoms: "
    "encoder = atoms, biases 0; linear: as torch.nn.Linear has it, atoms orthogonal (the seed).",
    choices=("calibrated", "atoms", "linear"),
)  # fmt: skip
_encoder_norm = partial(
    setting,
    "auto",
    "Calibrated: product of the encoder's rows and their atoms; auto: cube root of width / size, at most 1.",
)
_initial_density = partial(setting, "auto", "Calibrated: share of rows on which each feature fires first; auto: 0.05.")
_whitening = partial(
    setting, "auto", "Calibrated: the encoder is the atoms times the covariance to the power of minus this; auto: 0.5; "
    "0: a copy.",
)  # fmt: skip
_l1_warmup = partial(setting, 0.3, "Share of the steps, at the start, over which L1 rises from zero.", max=1)


@dataclass(frozen=True, kw_only=True)
class TrainGptConfig(StageConfig):
    """Text, tokens and the transformer. Defaults: the seed experiment's shape (6 layers of 32, MLP 128)."""

    stage = "train-gpt"

    text: tuple[str, ...] = setting((), "Files, folders or globs of text; none: the Python sources installed here.")
    text_key: str = _text_key()
    hf_dataset: str | None = setting(None, "A Hugging Face dataset instead of files (needs sparsecode[hf]).")
    hf_stream: bool = _hf_stream()
    skip_bad: bool = _skip_bad()
    max_text_mb: int | None = _max_text_mb()
    val_fraction: float = setting(0.02, "Share of documents held out for validation.", above=0, below=1)
    tokenizer: str | None = setting(None, "A tokenizer.json or a folder with GPT-2's encoder.json and vocab.bpe.")
    vocab_size: int = _count(4096, "Tokens in the byte-level BPE that is trained when no tokenizer is given.")
    n_layer: int = _count(6, "Transformer blocks.")
    n_head: int = _count(4, "Attention heads.")
    d_model: int = _count(32, "Width of the residual stream.")
    d_mlp: int | None = _count(None, "Width of the MLP's hidden layer; default 4 times d-model.")
    context: int = _count(256, "Tokens in a context.")
    batch_size: int = _count(32, "Contexts in a batch.")
    steps: int = _count(5000, "Most optimiser steps; fewer if --minutes ends first.")
    minutes: float | None = _positive(None, "Plan the number of steps so that training takes about this long here.")
    min_tokens: int = setting(0, "Train on at least this many tokens, however few --minutes allow; at most --steps.")
    lr: float = _positive(6e-3, "Peak learning rate of AdamW; small models like large ones.")
    warmup_steps: int = setting(100, "Steps of linear warm-up.")
    final_lr_fraction: float = setting(0.1, "Learning rate at the end of the cosine, as a share of the peak.")
    weight_decay: float = setting(0.1, "AdamW's weight decay on matrices.")
    beta1: float = setting(0.9, "AdamW's decay of the mean gradient.", below=1)
    beta2: float = setting(0.95, "AdamW's decay of the mean squared gradient; nanoGPT's, for small batches.", below=1)
    grad_clip: float = setting(1.0, "Largest norm of the gradient.", above=0)
    val_tokens: int = _count(200_000, "Validation tokens, spread over the held-out documents.")
    log_every: int = _every(100, "Steps between metrics lines.")
    val_every: int = _every(1000, "Steps between validations, each with a sample of text.")
    save_every: int = _every(200, "Steps between saved states.")
    seed: int = _seed("Seed of initialisation and of the order of contexts.")
    device: str = _device()


@dataclass(frozen=True, kw_only=True)
class TextConfig(StageConfig):
    """Text to run a third-party model on. Same names as in `HarvestConfig`."""

    stage = "tokens"

    text: tuple[str, ...] = setting((), "Files, folders or globs of text.")
    text_key: str = setting("text", "Key of the text in tables.")
    hf_dataset: str | None = setting(None, "A Hugging Face dataset.")
    hf_stream: bool = setting(False, "Read its beginning as a stream.")
    skip_bad: bool = setting(False, "Skip unreadable files.")
    max_text_mb: int | None = _count(None, "Most MB of text.")
    chat: bool = setting(False, "Conversations, written by the model's chat template.")
    control_tokens: str = _list("auto", "Which control tokens are read in the text.")

    def record(self) -> dict[str, Any]:
        """Without what runs of earlier versions do not record, where it is as they had it."""
        default = {"hf_stream": False, "chat": False, "control_tokens": "auto"}
        return {name: value for name, value in super().record().items() if default.get(name, ...) != value}


SITES = ("mlp", "resid", "mlp_out", "attn", "attn_out", "resid_pre", "resid_mid")


@dataclass(frozen=True, kw_only=True)
class HarvestConfig(StageConfig):
    """Which activations to store. Defaults: the seed's hook point, MLP activations of layer 2 after the GELU."""

    stage = "harvest"

    layer: int | str = _list(2, "Layers to read, from 0: one, or several as 0,2,4 or 0-5.")
    site: str = setting("mlp", "mlp: after the nonlinearity; resid: after the block; others as their names say; "
                        "several with commas.", choices=SITES, several=True)  # fmt: skip
    hook: str | None = setting(None, "Hook points by name, such as blocks.2.mlp.hook_post, several with commas; beats "
                               "--layer and --site.", several=True)  # fmt: skip
    module: tuple[str, ...] = setting((), "Modules by path instead: PATH for what they give, PATH@input for what they "
                                      "are given.")  # fmt: skip
    rows: int = _count(6_000_000, "Rows (tokens) to store; a multiple of the context fits best.")
    dtype: str = setting("float16", "Type on disk.", choices=("float16", "bfloat16", "float32"))
    batch_size: int = _count(64, "Contexts in a forward pass; its shape decides the last bits of a row.")
    shard_mb: int = _count(256, "Size of a shard file in MB.")
    shard_rows: int | None = _count(None, "Rows of a shard file instead; with a multiple of those of a forward pass, "
                                    "parts do none twice.")  # fmt: skip
    seed: int = _seed("Seed of the order in which contexts are read.")
    device: str = _device(affects_result=False, remembered=False)
    # Which model and which text these are is in their fingerprints, inputs of the stage.
    model: str | None = setting(None, "A model instead of the run's own: a folder or a name of Hugging Face's (needs "
                                "sparsecode[hf]), or a folder that convert wrote.", affects_result=False)  # fmt: skip
    model_dtype: str = setting("auto", "Type the --model computes in; auto: the one it was saved in, or float32 where "
                               "the processor would emulate that.",
                               choices=("auto", "float32", "bfloat16", "float16"))  # fmt: skip
    context: int | None = _count(None, "With --model: tokens in a context; default 256, or the most it takes.")
    batch_tokens: int = _count(16_384, "With --model: tokens in a forward pass, padding included.")
    documents: bool = setting(False, "With --model: never two documents in a context; short ones are padded.")
    special_tokens: bool = setting(False, "With --model: store the rows of special tokens too.")
    # The run keeps its text as tokens: without these it is read again from there.
    text: tuple[str, ...] = setting((), "With --model: files, folders or globs of text; none: the Python sources "
                                    "installed here.", affects_result=False, remembered=False)  # fmt: skip
    text_key: str = _text_key(affects_result=False, remembered=False)
    hf_dataset: str | None = setting(None, "With --model: a Hugging Face dataset instead of files.",
                                     affects_result=False, remembered=False)  # fmt: skip
    hf_stream: bool = _hf_stream(affects_result=False, remembered=False)
    skip_bad: bool = _skip_bad(affects_result=False, remembered=False)
    max_text_mb: int | None = _max_text_mb(affects_result=False, remembered=False)
    chat: bool = setting(False, "With --model: conversations (messages with role and content, in tables) instead of "
                         "text, as the model's own chat template writes them.")  # fmt: skip
    control_tokens: str = setting("auto", "With --model: control tokens to read where the text spells them: all, none, "
                                  "names with commas, or auto: all where the model has a chat template.",
                                  affects_result=False, remembered=False, several=True)  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Without what has no meaning: the one half of the settings with a model, the other without."""
        other = ("batch_size",) if self.model is not None else _WITH_MODEL
        if not self.chat:
            other = (*other, "chat")  # as earlier versions record it
        if self.shard_rows is None:
            other = (*other, "shard_rows")
        return {name: value for name, value in super().record().items() if name not in other}


_WITH_MODEL = ("module", "model_dtype", "context", "batch_tokens", "documents", "special_tokens", "chat")


@dataclass(frozen=True, kw_only=True)
class TrainDictsConfig(StageConfig):
    """A sweep of dictionaries over sizes, kinds and seeds, trained together on the same batches."""

    stage = "train-dicts"

    # These two say where the data are; which data they are is in the dataset's fingerprint, an input of the stage.
    hook: str | None = setting(None, "Which harvested hook point to train on, needed where the run holds several; or "
                               "several with commas, side by side in one dictionary.", affects_result=False,
                               several=True)  # fmt: skip
    dataset: str | None = setting(None, "Folder of a dataset to train on instead of one harvested in this run.",
                                  affects_result=False)  # fmt: skip
    target: str | None = setting(None, "Train transcoders, which write this hook point from what --hook holds; with "
                                 "--dataset a dataset's folder.", affects_result=False)  # fmt: skip
    skip: bool = setting(False, "Give a transcoder a linear part, fitted beforehand; features learn what it leaves.")
    sizes: str = _list("64-4096", "Sizes: 64-4096 (powers of two), 64,100,512, or 2x-32x (times the width).")
    l1: str = _list("1.5e-2", "L1 coefficients: one, several with commas, or 1e-4:1e-2:8 (8, log-spaced).")
    kind: tuple[str, ...] = setting(
        (), "A kind of dictionary and its settings, such as 'batchtopk k=8,16'; several train side by side. relu, "
        "topk, batchtopk, matryoshka, jumprelu, gated or panneal; none: relu. See docs/kinds.md.", metavar="KIND",
    )  # fmt: skip
    k: str | None = _list(None, "Codes per row of every --kind that selects so many: topk, batchtopk, matryoshka.")
    l0: str | None = _list(None, "Codes per row that every jumprelu aims at.")
    window: str | None = _list(None, "Width of the window in which thresholds of jumprelu learn.", shown="0.05")
    groups: str | None = _list(None, "Shares of nested groups of features, such as 1/4,3/4.",
                               shown="none; matryoshka: 1/16,1/8,1/4,9/16")  # fmt: skip
    aux: str | None = _list(None, "Weight of the loss of dead features, such as 1/32, of kinds with --k.",
                            shown="none")  # fmt: skip
    seeds: int = _count(1, "Dictionaries per size and kind, each from its own initialisation.", max=10_000)
    seed: int = _seed("First seed; also that of the order of rows.")
    samples: int | None = _count(None, "Rows to train on, over several epochs if need be; 8 million unless --minutes.")
    epochs: float | None = _positive(None, "Passes over the dataset; beats --samples.")
    minutes: float | None = _positive(None, "Train for about this long here; --samples or --epochs may end it earlier.")
    min_samples: int = setting(0, "Train on at least this many rows, however few --minutes allow; at most --samples.")
    batch_size: int = _count(4096, "Rows in a batch.")
    lr: float = _positive(8e-3, "Peak learning rate of Adam (the seed's 1e-3 went with batches of 256).")
    lr_scaling: str = setting("sqrt", "sqrt: --lr is that of 1,024 features and falls with the root of the size; none: "
                              "every size has --lr.", choices=("sqrt", "none"))  # fmt: skip
    warmup_steps: int = setting(200, "Steps of linear warm-up; at most half of a known number of steps.")
    decay_fraction: float = setting(0.2, "Share of the steps, at the end, over which the rate falls to zero.", max=1)
    start: str = _start()
    # Which atoms these are is in the dictionary's fingerprint, an input of the stage.
    init: str | None = setting(None, "A dictionary whose atoms the features begin near, in their order; none: random.",
                               affects_result=False)  # fmt: skip
    init_jitter: float = setting(0.3, "How far from them, each seed in a direction of its own; at 0 agreement of seeds "
                                 "says nothing.")  # fmt: skip
    encoder_norm: str = _encoder_norm()
    initial_density: str = _initial_density()
    whitening: str = _whitening()
    l1_warmup: float = _l1_warmup()
    normalize: str = setting("center", "center: subtract the mean, divide by the standard deviation; rms: divide by "
                             "the root mean square; none.", choices=("rms", "center", "none"))  # fmt: skip
    mse: str = setting("mean", "Squared error averaged over dimensions (the seed) or summed (SAELens).",
                       choices=("mean", "sum"))  # fmt: skip
    l1_scale: str = setting("plain", "per-size divides L1 by the dictionary size: the artefact the seed explains.",
                            choices=("plain", "per-size"))  # fmt: skip
    tied: bool = setting(False, "Encoder and decoder share their weights.")
    pre_bias: bool = setting(False, "Learn a bias that is subtracted before encoding and added after decoding.")
    project_gradient: bool = setting(True, "Remove the gradient along each atom; off: only renormalise, as the seed.")
    frozen: bool = setting(False, "Leave the atoms as they begin: what random directions are worth.")
    aligned: bool = setting(False, "After every step, set the product of each encoder row and its atom to 1.")
    eval_rows: int = _count(65_536, "Rows at the end, never trained on, for the final metrics; at most a quarter.")
    order: str = setting("auto", "Order of rows: exact shuffles all of them, windowed reads blocks ahead, for data "
                         "larger than memory; auto: windowed where the data exceed half of memory.",
                         choices=("auto", "exact", "windowed"))  # fmt: skip
    log_every: int = _every(100, "Steps between metrics lines.")
    save_every: int = _every(1000, "Steps between saved states.")
    split: int = setting(1, "Processes that share each dictionary, a power of two: each holds a part of its features "
                         "(docs/scale.md). Not for the CPU engine; for ReLU dictionaries with L1.",
                         min=1, affects_result=False, remembered=False)  # fmt: skip
    segments: int | None = setting(None, "Segments that each dictionary is cut into, whose sums are added in a fixed "
                                   "order, so that it has the same bytes for every --split up to that.", min=1,
                                   shown="8 with --split, or as many as that; else 1")  # fmt: skip
    patience: float = setting(600.0, "Seconds after which one of several processes that does not answer is given up "
                              "(docs/scale.md).", above=0, affects_result=False, remembered=False)  # fmt: skip
    engine: str = setting(
        "auto",
        "reference, cpu, gpu, one of the CPU engine's paths (amx, vnni, avx512, avxvnni, avx2, neon, scalar), or auto.",
    )
    threads: int | None = _threads()
    device: str = _device()

    @property
    def of_kinds(self) -> dict[str, str]:
        """The settings that are for every kind that knows them."""
        return {name: value for name in OF_KINDS if (value := getattr(self, name)) is not None}

    def asked(self, **values: Any) -> Self:
        """See `StageConfig.asked`.

        Raises:
            InvalidSetting: also L1 coefficients, where no kind has use for them.
        """
        found = super().asked(**values)
        if values.get("l1") is not None and found.kind:
            from sparsecode.sweep.kinds import kinds_of  # its package loads torch

            kinds_of(found.kind, (), found.of_kinds | {"l1": found.l1})
        return found

    def record(self) -> dict[str, Any]:
        """Without what is not said of kinds and transcoders, as earlier versions record it."""
        return {
            name: value for name, value in super().record().items()
            if not (name in ("kind", "skip", "frozen", "aligned") and not value)
            and not (name in OF_KINDS and value is None)
            and not (name == "init_jitter" and self.init is None) and (name, value) != ("order", "auto")
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareConfig(StageConfig):
    """How dictionaries are compared."""

    stage = "compare"

    threshold: float = setting(0.9, "Cosine above which a feature counts as found again.", below=1)
    duplicate_threshold: float = setting(0.8, "Cosine with another atom of its own dictionary above which a feature "
                                         "counts as a near-duplicate.", below=1)  # fmt: skip
    bins: int = setting(50, "Bins of the histograms of MCS, over 0 to 1.", min=1, max=10_000)
    absolute: bool = setting(False, "Ignore the sign of cosines.")


@dataclass(frozen=True, kw_only=True)
class ConsensusConfig(StageConfig):
    """A dictionary of the features that recur in several."""

    stage = "consensus"

    dictionaries: str | None = _list(None, "Members: names in the run or patterns such as 'n512_*', with commas; none: "
                                     "those that differ in their seed alone, of most seeds, then of most features "
                                     "found again.")  # fmt: skip
    support: int | None = _count(None, "Dictionaries that a feature must be in.", shown="more than half of the members")
    threshold: float = setting(0.8, "Cosine above which two atoms may be one feature, and of every member with the "
                               "centre.", below=1)  # fmt: skip
    encoder_threshold: float = setting(0.5, "Cosine above which their encoder rows must be; -1: any.", min=-1, below=1)
    hold_out: int | None = setting(None, "Dictionaries without a vote, the last by seed, to test the consensus on.",
                                   shown="1 of four or more, else 0")  # fmt: skip
    centre: str = setting("mean", "A feature's atom: the mean of its cluster, or its medoid, the member nearest to the "
                          "others.", choices=("mean", "medoid"))  # fmt: skip
    refit: str = setting("encoder", "encoder: train it anew with frozen atoms; none: the members' average.",
                         choices=("encoder", "none"))  # fmt: skip
    samples: int = _count(2_000_000, "Rows of that training.")
    l1: float | None = setting(None, "L1 coefficient around which it is tried.", shown="the members'")
    eval_rows: int = setting(16_384, "Held-out rows to measure reconstruction on.", min=2)
    functional: bool = setting(False, "Measure there as well whether features that are found behave alike, and what "
                               "groups of features do alone.")  # fmt: skip
    subspaces: bool = setting(False, "Measure there as well what the features span that recur in no other member.")
    loss: bool = setting(True, "Measure what reconstructions cost in the model, where the run trained its own.")
    name: str | None = setting(None, "Name of the dictionary.", shown="such as n214_support5")
    # Which data they are is in the dataset's fingerprint, an input of the stage.
    dataset: str | None = setting(None, "Folder of the activations, where they are not in this run.",
                                  affects_result=False)  # fmt: skip
    engine: str = setting("auto", "The engine that trains, named as in train-dicts.")
    threads: int | None = _threads()
    device: str = _device()


@dataclass(frozen=True, kw_only=True)
class ClaimsConfig(StageConfig):
    """How the seed's claims are tested: a sweep over size and L1 under both normalisations, and how much is read."""

    stage = "claims"

    dataset: str | None = setting(None, "Folder of the activations, where they are not in this run.",
                                  affects_result=False)  # fmt: skip
    sweep: bool = setting(True, "Train the sweep over size and L1 under both normalisations (claim 4).")
    sizes: str = _list("0.25x-4x", "Its sizes; x: times the width of the activations.")
    l1: str | None = _list(None, "Its L1 coefficients; none: 1/2, 1, 2 and 4 times that of train-dicts.")
    samples: int | None = _count(None, "Rows to train each of the two on; 2 million unless --minutes.")
    minutes: float | None = _positive(None, "Train both for about this long in all.")
    min_samples: int = setting(0, "Train each on at least this many rows, however few --minutes allow.")
    batch_size: int = _count(512, "Rows in their batches; small ones learn most from few rows.")
    warmup_steps: int = setting(200, "Steps of their warm-up; at most half of a known number of steps.")
    starts: bool = setting(True, "Train the run's sweep from every start on fewer rows, to compare them.")
    start_samples: int | None = _count(None, "Rows to train each of these on; 2 million unless --start-minutes.")
    start_minutes: float | None = _positive(None, "Train them for about this long in all.")
    threshold: float = setting(0.9, "Cosine above which their features count as found again.", below=1)
    rows: int | None = setting(None, "Rows searched for the strongest contexts; none: all.")
    directions: int = _count(48, "Features, neurons and random directions whose contexts are compared.")
    contexts: int = _count(20, "Strongest distinct contexts looked at for each.")
    features: int = setting(12, "Features whose contexts are kept as text.")
    shown: int = setting(12, "Contexts kept as text for each.")
    draws: int = setting(1000, "Resamples of a bootstrap interval.", min=100)
    seed: int = _seed("Seed of the sweep, of random directions and of resampling.")


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(StageConfig):
    """Dictionaries that nobody trained sparsely: neurons, PCA, ICA, NMF, random directions."""

    stage = "baselines"

    # Which data they are is in the dataset's fingerprint, an input of the stage.
    hook: str | None = setting(None, "Which harvested hook point; needed where the run holds several.",
                               affects_result=False)  # fmt: skip
    dataset: str | None = setting(None, "Folder of a dataset instead of one harvested in this run.",
                                  affects_result=False)  # fmt: skip
    kinds: str = _list("neurons,identity,random,pca,ica,nmf", "Which ones, separated by commas; also read and write: "
                       "directions of the model's own weights.")  # fmt: skip
    rows: int = _count(65_536, "Rows to fit on, drawn from those that dictionaries train on.")
    iterative_rows: int = _count(16_384, "Of these, rows for ICA and NMF, whose every iteration reads all of them.")
    ica_iterations: int = _count(100, "Most iterations of FastICA; the file says whether it had converged.")
    nmf_iterations: int = _count(20, "Most iterations of NMF.")
    eval_rows: int = _count(65_536, "Rows at the end for the metrics; the trained dictionaries' where there are any.")
    curve_rows: int = _count(8_192, "Of these, rows for the curves of FVU over the number of codes kept.")
    threshold: float = setting(0.9, "Cosine above which a feature counts as found again.", above=0, below=1)
    seed: int = _seed("Seed of the rows, of the random directions and of the fits.")


@dataclass(frozen=True, kw_only=True)
class InterpretConfig(StageConfig):
    """Explanations of directions in words, and how well they predict activations on text that they were not made of."""

    stage = "interpret"

    dictionaries: str | None = _list(None, "Dictionaries of the run, or paths of others, with commas; none: the "
                                     "one with most features found again.")  # fmt: skip
    # Which data they are is in the dataset's fingerprint, an input of the stage.
    dataset: str | None = setting(None, "Folder of the activations, where they are not in this run.",
                                  affects_result=False)  # fmt: skip
    directions: int = setting(48, "Directions of each group: features, neurons, PCA, random ones, ...", min=5)
    rate: float = setting(0.01, "Share of tokens that every direction is reduced to, its strongest.", above=0, max=0.5)
    rows: int = setting(60_000, "Rows to read, in whole contexts, half to explain and half to score on.", min=1000)
    control: bool = setting(True, "Compare with an untrained GPT of the same shape, where the run trained its own.")
    control_samples: int = _count(2_000_000, "Rows to train the control's dictionary on; at most as many as the run's.")
    draws: int = setting(1000, "Resamples of a bootstrap interval.", min=100)
    seed: int = _seed("Seed of the halves, of the directions and of the control.")
    embedder: str | None = setting(None, "Folder of a sentence encoder, read as harvest --model reads it, for the "
                                   "example-embedding score.")  # fmt: skip
    endpoint: str | None = setting(None, "URL of an OpenAI-compatible endpoint, such as http://localhost:8000/v1, "
                                   "whose model explains and scores too; text is sent there.")  # fmt: skip
    llm: str | None = setting(None, "Name of the model at the endpoint.")
    scorers: str = setting("detection,fuzzing", "What the model is asked to score explanations.",
                           choices=("detection", "fuzzing", "simulation", "intruder"), several=True)  # fmt: skip
    answer_tokens: int = _count(1024, "Most tokens of an answer; models that think before they answer need more.")
    key_env: str | None = setting(None, "Name of the environment variable that holds the key; none: no key, and for "
                                  "api.openai.com OPENAI_API_KEY.", affects_result=False)  # fmt: skip
    price: str | None = _list(None, "Dollars for a million tokens, in and out, as 0.15,0.60; none: the list price of a "
                              "known provider.", affects_result=False)  # fmt: skip
    budget: float | None = _positive(None, "Dollars that all calls of the run to this model may cost.",
                                     affects_result=False)  # fmt: skip
    budget_tokens: int | None = _count(None, "Tokens that they may read and write.", affects_result=False)
    concurrency: int = _every(8, "Calls that run at the same time.", max=256)

    def record(self) -> dict[str, Any]:
        """Without what has no meaning where nothing is asked, as earlier versions record it."""
        unused: tuple[str, ...] = () if self.endpoint else ("endpoint", "llm", "scorers", "answer_tokens")
        unused += () if self.embedder else ("embedder",)
        return {name: value for name, value in super().record().items() if name not in unused}


@dataclass(frozen=True, kw_only=True)
class BrowseConfig(StageConfig):
    """What a browser shows of every feature."""

    stage = "browse"

    dictionaries: str | None = _list(None, "Dictionaries and baselines of the run (n512*,pca), or paths of others, "
                                     "with commas; none: all of the run.")  # fmt: skip
    # Which data they are is in the dataset's fingerprint, an input of the stage.
    dataset: str | None = setting(None, "Folder of the activations, where they are not in this run.",
                                  affects_result=False)  # fmt: skip
    features: str = setting("all", "live: only those that are active on a row that is read.", choices=("all", "live"))
    rows: int = _count(1_000_000, "Most rows to read.")
    contexts: int = _count(12, "Strongest distinct contexts of each feature.")
    bands: int = _count(4, "Equal stretches of strength up to the peak, four contexts of each.", max=16)
    effects: str = setting("direct", "How features act on the logits. direct: by the linear path; causal: measured as "
                           "well, in a forward pass each; none.", choices=("direct", "causal", "none"))  # fmt: skip
    model: str | None = setting(None, "Folder or name of the model, for effects; none: the one that was harvested.",
                                affects_result=False)  # fmt: skip
    seed: int = _seed("Seed of the contexts that are drawn from each band.")


@dataclass(frozen=True, kw_only=True)
class ToyConfig(StageConfig):
    """Toy data whose true features are known, and a sweep of dictionaries over them. The data are the seed's."""

    stage = "toy"

    dim: int = setting(256, "Dimensions of the space.", min=2)
    true_features: int = setting(512, "True features.", min=2)
    active: float = setting(5.0, "Expected number of active features in a row.", above=0)
    blocks: int = setting(0, "Subspaces without a special basis, which no dictionary can identify.")
    block_rank: int = _count(12, "Dimensions of each.")
    draw_rows: int = _count(256, "Rows that share one draw of the correlated probabilities: the seed's batch.")
    sizes: str = _list("0.125x-4x", "Sizes: 0.125x-4x (times the true features), 64-2048 or 64,100.")
    l1: str = _list("1e-4:1.6e-3:5", "L1 coefficients: one, several with commas, or 1e-4:1.6e-3:5 (5, log-spaced).")
    seeds: int = _count(1, "Dictionaries per size and L1, each from its own initialisation.", max=10_000)
    seed: int = _seed("First seed; also that of the true features and of the data.")
    steps: int = _count(20_000, "Most optimiser steps, the seed's number; fewer if --minutes ends first.")
    minutes: float | None = _positive(None, "Plan the number of steps so that training takes about this long here.")
    min_steps: int = setting(0, "Train for at least this many steps, however few --minutes allow; at most --steps.")
    batch_size: int = _count(512, "Rows in a batch: a multiple of --draw-rows.")
    lr: float = _positive(1e-2, "Peak learning rate of Adam (the seed's 1e-3 needs ten times the steps).")
    warmup_steps: int = setting(50, "Steps of linear warm-up.")
    decay_fraction: float = setting(0.3, "Share of the steps, at the end, over which the rate falls to zero.", max=1)
    start: str = _start()
    encoder_norm: str = _encoder_norm()
    initial_density: str = _initial_density()
    whitening: str = _whitening()
    l1_warmup: float = _l1_warmup()
    l1_scale: str = setting("plain", "per-size divides L1 by the dictionary size, as the seed's toy script does.",
                            choices=("plain", "per-size"))  # fmt: skip
    project_gradient: bool = setting(True, "Remove the gradient along each atom; off: only renormalise, as the seed.")
    eval_rows: int = setting(16_384, "Fresh rows for the final metrics; a feature is dead if it fires on none.", min=2)
    threshold: float = setting(0.9, "Cosine above which a true feature counts as recovered.", above=0, below=1)
    save_dictionaries: bool = setting(False, "Keep every dictionary, in toy/dictionaries.")
    log_every: int = _every(500, "Steps between metrics lines.")
    save_every: int = _every(2000, "Steps between saved states.")
    engine: str = setting("auto", "The engine that trains, named as in train-dicts.")
    threads: int | None = _threads()
    device: str = _device()

    def record(self) -> dict[str, Any]:
        """Without blocks where there are none, as earlier versions record it."""
        found = super().record()
        return found if self.blocks else {name: own for name, own in found.items() if name not in _OF_BLOCKS}


_OF_BLOCKS = ("blocks", "block_rank")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StageConfig):
    """What the report shows."""

    stage = "report"

    features: int = setting(12, "Most features whose strongest contexts are shown, of those that `claims` found.")
    tokens: int = _count(12, "Most contexts per feature.")
    images: bool = setting(True, "Write each figure as PNG as well; needs chromium on PATH.")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(StageConfig):
    """Over which positions of which model dictionaries are evaluated. Recorded nowhere: nothing is written."""

    stage = "eval"

    model: str | None = setting(None, "Folder or name of the model; without it, the run's own GPT.")
    model_dtype: str = setting("auto", "Type the model computes in.",
                               choices=("auto", "float32", "bfloat16", "float16"),
                               shown="auto, the one it was saved in, or float32 where that is emulated")  # fmt: skip
    hook: str | None = setting(None, "Hook point or module, where a dictionary does not say its own.")
    rows: int = _count(16_000, "Positions to evaluate on.", shown="16k")
    context: int | None = _count(None, "Tokens in a context.", shown="as harvested")
    documents: bool | None = setting(None, "One document per context.", shown="as harvested")
    special_tokens: bool | None = setting(None, "Special tokens count too.", shown="as harvested")
    batch_tokens: int | None = _count(None, "Tokens in a forward pass.", shown="as fits")
    text: tuple[str, ...] = setting((), "Text to read instead of the run's held-out text.")
    text_key: str = setting("text", "With --text: key of the text in tables.")
    chat: bool | None = setting(None, "With --model and --text: conversations instead of text, as the model's own chat "
                                "template writes them.")  # fmt: skip
    control_tokens: str = setting("auto", "With --model and --text: control tokens to read where the text spells them: "
                                  "all, none, names with commas, or auto: all where the model has a chat template.",
                                  shown="auto", several=True)  # fmt: skip
    seed: int = _seed("Which tokens a masked model is asked for.", shown="")
    device: str = _device(shown="")


_KINDS: tuple[type[StageConfig], ...] = (
    TrainGptConfig, HarvestConfig, TrainDictsConfig, CompareConfig, ConsensusConfig, ClaimsConfig, BaselinesConfig,
    InterpretConfig, BrowseConfig, ToyConfig, ReportConfig,
)  # fmt: skip
STAGES = {kind.stage: kind for kind in _KINDS}
