"""`.npz` files: a zip file of arrays, each a header and its bytes. Arrays of Python objects, which only unpickling
makes, are refused.

Before anything is read, the size in an array's header is checked against the one in the zip file's table.
"""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from sparsecode.errors import DictionaryInvalid, PickleRefused

_PACKED = 100  # largest unpacked size over packed size: weights shrink a few times at most, zeros hundreds of times
_SMALL = 64 << 20  # this much is always allowed
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path) -> dict[str, Tensor]:
    """Every array of a `.npz` file by name.

    Raises:
        PickleRefused: an array holds Python objects, or the file unpacks to far more than its size.
        DictionaryInvalid: the file is missing, truncated or not a `.npz` file.
    """
    found: dict[str, Tensor] = {}
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.filename.endswith(".npy")]
            if sum(part.file_size for part in parts) > max(_SMALL, _PACKED * size):
                raise PickleRefused(f"{path}: unpacks to far more than its {size} bytes; it was not read")
            for part in parts:
                with archive.open(part) as opened:
                    name = part.filename.removesuffix(".npy")
                    found[name] = torch.from_numpy(_array(opened, part.file_size, f"{path}: {name}"))
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, NotImplementedError) as error:
        raise DictionaryInvalid(f"{path}: cut short, or not a .npz file of numbers; copy it again ({error})") from error
    return found


def _array(opened: IO[bytes], size: int, where: str) -> np.ndarray:
    """One array, read to its end; `size` is its unpacked size in the zip file's table."""
    version = np.lib.format.read_magic(opened)
    if version not in _HEADERS:
        raise DictionaryInvalid(f"{where}: is of a .npy format that is not known ({version}); save it again")
    shape, fortran, dtype = _HEADERS[version](opened)
    if dtype.hasobject:
        raise PickleRefused(f"{where}: holds Python objects, which only unpickling makes; it was not used")
    if dtype.kind not in "fiu":
        raise DictionaryInvalid(f"{where}: is of type {dtype}, not numbers")
    count = prod(shape)
    if count * dtype.itemsize > size:
        raise DictionaryInvalid(f"{where}: claims {count * dtype.itemsize} bytes of the {size} that it has")
    values = np.frombuffer(bytearray(opened.read(count * dtype.itemsize)), dtype)
    values = values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
    wide = np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(values, dtype=wide)
