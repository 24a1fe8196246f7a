"""Records of a comparison: JSON there and back, and the labels of relations."""

from __future__ import annotations

import json

import pytest
import torch

from sparsecode.comparison import Comparison, Relation, compare
from sparsecode.comparison.records import Contents
from sparsecode.records import as_json, from_json
from sparsecode.sweep import Dictionary


def dictionary(size: int, seed: int, *, counted: bool) -> Dictionary:
    atoms = torch.nn.functional.normalize(torch.randn(size, 4, generator=torch.Generator().manual_seed(seed)))
    meta = {"l1": 0.1, "seed": seed, "metrics": {"fvu": 0.5}}
    features = {"density": (torch.arange(size) % 2).float()} if counted else {}
    return Dictionary(atoms, torch.zeros(size), atoms, meta=meta, features=features)


@pytest.fixture(params=[True, False], ids=["counted", "not counted"])
def found(request: pytest.FixtureRequest) -> Comparison:
    return compare([dictionary(size, seed, counted=request.param) for size in (4, 8) for seed in (0, 1)])


def test_json_there_and_back(found: Comparison) -> None:
    read = from_json(Contents, json.loads(json.dumps(found.record)))
    assert read == found.contents
    assert as_json(read) == found.record


def test_what_may_be_absent_is_absent_and_what_may_be_none_is_null(found: Comparison) -> None:
    entry, counted = found.record["dictionaries"][-1], found.live(found.names[0]) is not None
    assert entry["next"] is None and "without_direction" not in entry and "left_out" not in found.record
    assert (entry["live"] is not None) == counted == ("live" in entry["other_seed"]["mcs"])
    assert list(entry)[:3] == ["name", "dict_size", "activation_dim"], "what its file says comes next"
    assert (entry["l1"], entry["metrics"]) == (0.1, {"fvu": 0.5}) and "kind" not in entry


@pytest.mark.parametrize("broken", [{}, {"dictionaries": 3}, {"settings": []}, {"mmcs": None, "inputs": [5]}])
def test_something_else_is_refused(found: Comparison, broken: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        from_json(Contents, found.record | broken if broken else {})


def test_a_relation_is_its_name_in_json_and_has_two_labels(found: Comparison) -> None:
    entry = found.entries[0]
    assert [relation for relation in Relation if entry.found_again(relation) is None] == []
    assert entry.relative(Relation.NEXT) is entry.next and entry.next is not None
    assert (
        str(Relation.OTHER_SEED) == "other_seed"
        and Relation.OTHER_SEED.long == "same size, another seed"
        and Relation.NEXT.short == "next larger"
    )


def test_kinds_are_apart_and_in_the_order_of_their_numbers() -> None:
    kinds: list[dict[str, object]] = [
        {"kind": "topk k=16"}, {"kind": "gated l1=0.2", "l1": 0.2}, {"l1": 0.2}, {"kind": "topk k=8"}, {"l1": 0.1},
        {"kind": "topk k=8 aux=0.1"},
    ]  # fmt: skip
    several = []
    for about in kinds:
        for size in (4, 8):
            several.append(dictionary(size, 0, counted=False))
            del several[-1].meta["l1"]
            several[-1].meta |= about
    made = compare(several)
    order = [(one.kind, one.l1) for one in made.entries if one.dict_size == 4]
    assert order == [
        (None, 0.1), (None, 0.2), ("gated l1=0.2", 0.2), ("topk k=8", None), ("topk k=16", None),
        ("topk k=8 aux=0.1", None),
    ]  # fmt: skip
    assert [len(family) for family in made.families] == [2] * len(kinds)
    assert made.names[:5] == ["n4_topk-16_s0", "n8_topk-16_s0", "n4_gated-0.2_s0", "n8_gated-0.2_s0", "n4_l1-0.2_s0"]
    for one in made.entries:
        assert (one.next is None) == (one.dict_size == 8)
        if one.next is not None:
            assert one.next.dictionary == one.name.replace("n4", "n8")
    assert [one.kind_name for one in made.entries if one.dict_size == 4] == [
        "relu", "relu", "gated l1=", "topk k=", "topk k=", "topk k= aux=",
    ]  # fmt: skip


def test_the_best_is_that_with_most_found_again(found: Comparison) -> None:
    best = found.best()
    assert best is not None and best[1] is Relation.NEXT_OTHER_SEED
    assert best[0].found_again(best[1]) == max(one.found_again(best[1]) or 0 for one in found.entries)
    assert [[one.dict_size for one in family] for family in found.families] == [[4, 8], [4, 8]]
