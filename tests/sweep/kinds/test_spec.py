"""Kinds as people write them: what they mean, what is refused and with which words, and names and keys."""

from __future__ import annotations

import doctest
import hashlib
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsecode.errors import InvalidSetting
from sparsecode.sweep import dictionary_name, initial_atoms
from sparsecode.sweep.kinds import (
    Annealing,
    AuxK,
    BatchTopK,
    Gated,
    JumpRelu,
    Kind,
    KindSpec,
    PAnneal,
    Relu,
    TopK,
    entries,
    parse_kinds,
    spec,
)
from sparsecode.sweep.kinds import text as reading


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("relu l1=2.3e-2", [Relu(2.3e-2)]),
        ("relu l1=1e-4:1e-2:3,5", [Relu(1e-4), Relu(1e-3), Relu(1e-2), Relu(5.0)]),
        ("topk k=32,16", [TopK(16), TopK(32)]),
        ("topk k=8:64:4", [TopK(8), TopK(16), TopK(32), TopK(64)]),
        ("batchtopk k=8,16,8", [BatchTopK(8), BatchTopK(16)]),
        ("batchtopk k=1/2,2.5", [BatchTopK(0.5), BatchTopK(2.5)]),
        ("matryoshka k=32", [BatchTopK(32)]),
        ("jumprelu l0=16", [JumpRelu(1.0, 0.05, "target", 16.0)]),
        ("jumprelu l0=16 window=0.05,0.1", [JumpRelu(1.0, w, "target", 16.0) for w in (0.05, 0.1)]),
        ("jumprelu l0=16 penalty=quadratic,target strength=2",
         [JumpRelu(2.0, 0.05, p, 16.0) for p in ("quadratic", "target")]),
        ("jumprelu strength=0.1", [JumpRelu(0.1, 0.05, "step")]),
        ("jumprelu strength=10 penalty=tanh steepness=2 to_input=yes window=2 pre_activation=3e-6",
         [JumpRelu(10.0, 2.0, "tanh", None, 2.0, True, 3e-6)]),
        ("gated l1=0.1", [Gated(0.1)]),
        ("panneal l1=0.1 p_end=0.2", [PAnneal(0.1)]),
        ("  topk   k=3 ", [TopK(3)]),
    ],
)  # fmt: skip
def test_what_a_text_means(text: str, kinds: list[Kind]) -> None:
    assert [found.kind() for found in parse_kinds(text)] == kinds


def test_every_combination_the_first_key_outermost() -> None:
    found = parse_kinds("jumprelu window=0.1,0.05 l0=16,8")
    assert [(kind.l0, kind.window) for kind in found] == [(8, 0.05), (8, 0.1), (16, 0.05), (16, 0.1)]


def test_a_coefficient_may_be_divided_by_the_size() -> None:
    kinds = {"relu l1=0.5": Relu(0.125), "gated l1=0.5": Gated(0.125), "panneal l1=0.5": PAnneal(0.125)}
    assert {text: parse_kinds(text)[0].kind(1 / 4) for text in kinds} == kinds


def test_the_loss_of_dead_features() -> None:
    assert parse_kinds("topk k=16")[0].auxiliary() is None
    (found,) = parse_kinds("topk k=16 aux=1/32 aux_k=64 dead_after=1000")
    assert found.auxiliary() == AuxK(1 / 32, 64)
    assert found.dead_after == 1000
    assert parse_kinds("batchtopk k=16 aux=1/32")[0] == KindSpec("batchtopk", k=16, aux=1 / 32, dead_after=250_000)


def test_groups_are_shares_and_end_at_the_size() -> None:
    (found,) = parse_kinds("matryoshka k=32 groups=1/16,1/8,1/4,9/16")
    assert found == parse_kinds("matryoshka k=32")[0]
    assert found.ends(64) == (4, 12, 28, 64)
    assert parse_kinds("relu l1=1 groups=1/3,2/3")[0].ends(10) == (3, 10)
    assert parse_kinds("topk k=1 groups=0.1,0.2,0.7")[0].ends(20) == (2, 6, 20)
    assert parse_kinds("topk k=1")[0].ends(20) == ()
    with pytest.raises(InvalidSetting, match="a group of 4 features would have none; take a larger size"):
        found.ends(4)


def test_the_exponent_has_its_last_value_as_long_as_the_others() -> None:
    (found,) = parse_kinds("panneal l1=0.1 p_end=0.5 changes=4 anneal_start=1/2")
    assert found.annealing(2000) == Annealing(1000, 1800, 0.5, 4)
    assert parse_kinds("relu l1=0.1")[0].annealing(2000) is None
    assert found.annealing(2000, 1200) == Annealing(1200, 1840, 0.5, 4)
    assert found.annealing(2000, 1997) == Annealing(1997, 1999, 0.5, 2)
    assert found.annealing(2000, 1999) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "kind '' is unknown; known: relu, topk, batchtopk, matryoshka, jumprelu, gated, panneal"),
        ("lista l1=1", "kind 'lista' is unknown"),
        ("batchtopk l1=3", "batchtopk knows no l1; it knows k, groups, aux, aux_k, dead_after"),
        ("relu l1=1 k=3", "relu knows no k; it knows l1, groups"),
        ("relu name=topk l1=1", "relu knows no name"),
        ("relu =3", "relu knows no key without a name"),
        ("relu", "relu needs l1, as in 'relu l1=1e-2'"),
        ("batchtopk aux=1", "batchtopk needs k, as in 'batchtopk k=8'"),
        ("jumprelu", "jumprelu needs l0, its target, or strength"),
        ("batchtopk 8", "batchtopk: '8' is not KEY=VALUE; kinds look like"),
        ("batchtopk k = 8", "batchtopk: 'k' is not KEY=VALUE"),
        ("batchtopk k=8 k=16", "batchtopk: k is given twice; separate values with commas"),
        ("batchtopk k=8,", "batchtopk k=: '' is not a number, as 0.05 or 1/20"),
        ("batchtopk k=x", "batchtopk k=x: 'x' is not a number"),
        ("batchtopk k=1/0", "'1/0' is not a number"),
        ("batchtopk k=0", "batchtopk k=0: '0' is not a number above 0"),
        ("batchtopk k=-3", "'-3' is not a number above 0"),
        ("batchtopk k=nan", "'nan' is not a number"),
        ("batchtopk k=1e999", "'inf' is not a number above 0"),
        ("topk k=2.5", "topk k=2.5: '2.5' is not a whole number from 1; batchtopk takes others"),
        ("topk k=8:64:3", "is not a whole number from 1"),
        ("relu l1=1:2", "relu l1=1:2: '1:2' is not LOW:HIGH:COUNT"),
        ("relu l1=2:1:3", "is not LOW:HIGH:COUNT"),
        ("relu l1=1:2:99999", "a count of 2 to 9999"),
        ("jumprelu l0=8 penalty=l1", "penalty=l1: 'l1' is not step or target or quadratic or tanh"),
        ("jumprelu l0=8 penalty=step", "penalty step has no use for l0"),
        ("jumprelu strength=1 penalty=quadratic", "penalty quadratic needs l0"),
        ("jumprelu l0=8 steepness=2", "penalty target has no use for steepness"),
        ("jumprelu l0=8 to_input=true", "'true' is not no or yes"),
        ("jumprelu l0=8 window=0", "'0' is not a number above 0"),
        ("panneal l1=1 p_end=0", "'0' is not a number above 0 and up to 1"),
        ("panneal l1=1 anneal_start=1", "'1' is not a number from 0 and below 1"),
        ("panneal l1=1 changes=1.5", "'1.5' is not a whole number from 1"),
        ("topk k=1 aux_k=3", "topk: aux_k has no use without aux"),
        ("topk k=1 dead_after=3", "topk: dead_after has no use without aux"),
        ("matryoshka k=8 groups=1", "'1' is not two or more shares above 0 that make 1"),
        ("matryoshka k=8 groups=1/2,1/3", "'1/2,1/3' is not two or more shares"),
        ("matryoshka k=8 groups=3/2,-1/2", "shares above 0"),
        ("matryoshka k=8 groups=1/2,x", "'x' is not a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse_kinds(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_is_refused_what_text_is() -> None:
    for settings in ({"l1": 3.0}, {}, {"k": float("nan")}, {"k": 8, "groups": (0.5, 0.6)}, {"k": 8, "to_input": True}):
        with pytest.raises(InvalidSetting, match="batchtopk"):
            KindSpec("batchtopk", **settings)
    halves: Any = ("1/2", 0.5)
    assert KindSpec("batchtopk", k=8, groups=halves).groups == (Fraction(1, 2), Fraction(1, 2))


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        ("relu l1=0.001", "n512_l1-0.001_s0", "atoms/512/0.001/0"),
        ("relu l1=1", "n512_l1-1_s0", "atoms/512/1.0/0"),
        ("relu l1=0.0123456", "n512_l1-0.0123_s0", "atoms/512/0.0123456/0"),
        ("relu l1=1 groups=1/4,3/4", "n512_relu-1-groups1of4+3of4_s0", "atoms/512/relu-1-groups1of4+3of4/0"),
        ("batchtopk k=32", "n512_batchtopk-32_s0", "atoms/512/batchtopk-32/0"),
        ("batchtopk k=2.34567", "n512_batchtopk-2.35_s0", "atoms/512/batchtopk-2.34567/0"),
        ("matryoshka k=32", "n512_matryoshka-32_s0", "atoms/512/matryoshka-32/0"),
        ("matryoshka k=256", "n512_matryoshka-256_s0", "atoms/512/matryoshka-256/0"),
        ("topk k=16 aux=1/32", "n512_topk-16-aux0.0312_s0", "atoms/512/topk-16-aux0.03125/0"),
        ("jumprelu l0=16", "n512_jumprelu-16_s0", "atoms/512/jumprelu-16/0"),
        ("jumprelu strength=0.1 to_input=yes", "n512_jumprelu-strength0.1-toinputyes_s0",
         "atoms/512/jumprelu-strength0.1-toinputyes/0"),
        ("gated l1=1e-5", "n512_gated-1e-05_s0", "atoms/512/gated-1e-05/0"),
        ("panneal l1=0.1 p_end=0.5", "n512_panneal-0.1-pend0.5_s0", "atoms/512/panneal-0.1-pend0.5/0"),
    ],
)  # fmt: skip
def test_names_and_keys(text: str, name: str, key: str) -> None:
    (found,) = parse_kinds(text)
    assert found.file_name(512, 0) == name
    assert found.key("atoms", 512, 0) == key


@pytest.mark.parametrize("l1", [1e-3, 0.023, 1.0, 0.0, 1 / 3])
def test_dictionaries_of_relu_keep_their_names_and_atoms(l1: float) -> None:
    kind = KindSpec("relu", l1=l1)
    assert kind.file_name(64, 3) == dictionary_name(64, l1, 3)
    digest = hashlib.sha256(kind.key("atoms", 64, 3).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    rows = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator))
    assert torch.equal(rows, initial_atoms(64, l1, 3, 8))


def test_entries_are_every_size_kind_and_seed() -> None:
    kinds = [kind for text in ("relu l1=2.3e-2", "batchtopk k=8,16") for kind in parse_kinds(text)]
    found = entries([64, 128], kinds, [0, 1])
    assert len(found) == 12
    assert found[0] == (64, kinds[0], 0)
    assert [kind.file_name(size, seed) for size, kind, seed in found[:3]] == [
        "n64_l1-0.023_s0", "n64_l1-0.023_s1", "n64_batchtopk-8_s0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["topk k=8", "topk k=8"], "'topk k=8' is given twice"),
        (["relu l1=0.10002", "relu l1=0.10001"], "and 'relu l1=0.10002' are equal to three digits"),
        (["batchtopk k=65"], "'batchtopk k=65': k is more than the 64 features"),
        (["jumprelu l0=65"], "l0 is more than the 64 features"),
        (["matryoshka k=8 groups=1/1000,999/1000"], "would have none"),
    ],
)
def test_dictionaries_that_cannot_be_trained_together_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        entries([64], [kind for text in texts for kind in parse_kinds(text)], [0])


NUMBERS = st.floats(1e-300, 1e300) | st.integers(1, 10**6).map(float) | st.fractions(0.001, 1000).map(float)
WHOLE = st.integers(1, 10**9)
SHARES = st.lists(st.integers(1, 50), min_size=2, max_size=6).map(lambda n: tuple(Fraction(i, sum(n)) for i in n))
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("l1", "k", "l0", "strength", "window", "steepness", "pre_activation", "aux"), NUMBERS),
    **dict.fromkeys(("changes", "aux_k", "dead_after"), WHOLE),
    "penalty": st.sampled_from(["step", "target", "quadratic", "tanh"]),
    "to_input": st.booleans(),
    "p_end": st.floats(1e-9, 1),
    "anneal_start": st.floats(0, 0.999),
    "groups": SHARES,
}


@st.composite
def specs(draw: st.DrawFn) -> KindSpec:
    """Any kind with any settings that go together."""
    name = draw(st.sampled_from(list(spec.KEYS)))
    first, *others = spec.KEYS[name]
    settings: dict[str, Any] = {first: draw(WHOLE if name == "topk" else NUMBERS)}
    settings |= {key: draw(SETTINGS[key]) for key in others if draw(st.booleans())}
    if name == "jumprelu":
        if draw(st.booleans()):
            settings["penalty"] = draw(st.sampled_from(["target", "quadratic"]))
        else:
            del settings["l0"]
            settings |= {"penalty": draw(st.sampled_from(["step", "tanh"])), "strength": draw(NUMBERS)}
        if settings["penalty"] != "tanh":
            settings.pop("steepness", None)
    if "aux" not in settings:
        settings.pop("aux_k", None), settings.pop("dead_after", None)
    return KindSpec(name, **settings)


@given(kind=specs(), other=specs())
def test_a_kind_written_is_that_kind_read(kind: KindSpec, other: KindSpec) -> None:
    assert parse_kinds(str(kind)) == [kind]
    assert KindSpec(kind.name, **{key: getattr(kind, key) for key in spec.KEYS[kind.name]}) == kind
    assert (kind.key("atoms", 64, 0) == other.key("atoms", 64, 0)) == (kind == other)
    name = kind.file_name(64, 0)
    assert name.isascii() and not set(name) & set('/\\:*?"<>| ') and name.isprintable()
    kind.kind(), kind.auxiliary()


@given(kinds=st.lists(specs(), min_size=1, max_size=5))
def test_entries_have_names_of_their_own_or_are_refused(kinds: list[KindSpec]) -> None:
    try:
        found = entries([2**24], kinds, [0])
    except InvalidSetting:
        return
    assert len({kind.file_name(size, seed) for size, kind, seed in found}) == len(kinds)


WORDS = st.sampled_from([*spec.KEYS, *SETTINGS, "=", ",", ":", " ", "8", "1/3", "1e-3", "-", "yes", "tanh", "٣", "."])


@given(text=st.text(max_size=20) | st.lists(WORDS, max_size=12).map("".join))
def test_any_text_gives_kinds_or_the_named_error(text: str) -> None:
    try:
        found = parse_kinds(text)
    except InvalidSetting as error:
        assert "\n" not in str(error) or "\n" in text
        return
    assert found and len(set(found)) == len(found)
    assert [again for kind in found for again in parse_kinds(str(kind))] == found


def test_examples_in_docstrings_run() -> None:
    assert doctest.testmod(reading)[0] == 0
    assert doctest.testmod(reading)[1] > 0
