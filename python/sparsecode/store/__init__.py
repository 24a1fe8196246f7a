"""The activation store: datasets of rows on disk, written once, always checked, read in any order at memory speed.

    with DatasetWriter("data", activation_dim=128, dtype="float16", provenance={"hook_point": "..."}) as writer:
        writer.append(activations, tokens)
        dataset = writer.finish()

    with ActivationStream(Dataset("data"), batch_size=4096, seed=0) as stream:
        for batch in stream:
            ...

The order of rows is a pure function of (seed, epoch, dataset); `docs/format.md` describes the files byte for byte.
"""

from sparsecode.store.aligned import check_aligned
from sparsecode.store.dataset import Dataset, Shard, dataset_damage, read_header
from sparsecode.store.merge import merge_datasets
from sparsecode.store.stream import ActivationStream
from sparsecode.store.writer import DatasetWriter

__all__ = [
    "ActivationStream",
    "Dataset",
    "DatasetWriter",
    "Shard",
    "check_aligned",
    "dataset_damage",
    "merge_datasets",
    "read_header",
]
