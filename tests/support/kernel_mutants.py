"""Bugs to plant in the kernels: each is one edit of the source, and each must be caught by a check.

`python tests/support/kernel_docs.py mutants` plants them all and writes the table of docs/kernels.md.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import interpreter_shim
from kernel_checks import CHECKS, Kernels
from kernel_far_checks import FAR_CHECKS
from kernel_sparse_checks import SPARSE_CHECKS

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "kernels"
GPU = ROOT / "python/sparsecode/sweep/engines/gpu"


@dataclass(frozen=True)
class Mutant:
    """One planted bug: `old` occurs once in `module`.py of the folder and becomes `new`."""

    module: str
    bug: str
    old: str
    new: str
    folder: Path = KERNELS

    def source(self) -> str:
        text = (self.folder / f"{self.module}.py").read_text()
        assert text.count(self.old) == 1, f"{self.module}: '{self.old}' occurs {text.count(self.old)} times"
        return text.replace(self.old, self.new)

    def load(self, folder: Path) -> ModuleType:
        """The kernels' module with the bug, imported from a file, because the interpreter reads its source."""
        path = folder / f"mutant_{self.module}.py"
        path.write_text(self.source())
        spec = importlib.util.spec_from_file_location(f"mutant_{self.module}_{abs(hash(self.bug))}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


MUTANTS = (
    Mutant("forward", "last tile of features dropped", "tl.range(start, stop, BF)", "tl.range(start, stop - BF, BF)"),
    Mutant(
        "forward",
        "encoder rows of the next dictionary read",
        "w_enc = tl.load(w_enc_ptr + w_offset, mask=w_mask, other=0.0)\n        bias = tl.load(bias_ptr + features, "
        "mask=owned, other=0.0)",
        "w_enc = tl.load(w_enc_ptr + w_offset)\n        bias = tl.load(bias_ptr + features)",
    ),
    Mutant("forward", "bias forgotten", " + bias[None, :]", ""),
    Mutant("forward", "no ReLU", "tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)", "y"),
    Mutant("forward", "ReLU hides NaN", "tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)", "tl.maximum(y, 0.0)"),
    Mutant("backward", "firings count zeros", "active = y > 0", "active = y >= 0"),
    Mutant("reduce", "L0 of the first part only", "at += N", "at += 0"),
    Mutant("reduce", "L0 counts the next dictionary", "mask=features < stop", "mask=features < stop + 1"),
    Mutant("forward", "padded rows counted in L1", "tl.sum(tl.where(in_batch, l1, 0.0), 0)", "tl.sum(l1, 0)"),
    Mutant("forward", "pre-bias not added back", "x_hat += tl.load(pre_ptr", "x_hat += 0 * tl.load(pre_ptr"),
    Mutant(
        "forward",
        "residual of dictionary 0 overwritten",
        "base = residual_ptr + k.to(tl.int64) * B * D",
        "base = residual_ptr",
    ),
    Mutant("forward", "residual with the wrong sign", "x_hat - target", "target - x_hat"),
    Mutant(
        "forward",
        "residual stored past the batch",
        "r.to(residual_ptr.dtype.element_ty), mask=x_mask)",
        "r.to(residual_ptr.dtype.element_ty))",
    ),
    Mutant(
        "forward",
        "order table ignored by half",
        "sums = sums_ptr + tile * 2 * K + k",
        "sums = sums_ptr + tile * 2 * K + pid // T",
    ),
    Mutant(
        "forward",
        "32-bit offset into the weights",
        "w_offset = features[:, None].to(tl.int64) * D",
        "w_offset = features[:, None] * D",
    ),
    Mutant(
        "backward",
        "padded rows of the batch kept",
        "off = off | (rows >= B)[None, :]",
        "off = off | (rows < 0)[None, :]",
    ),
    Mutant("backward", "gradient where the code is exactly 0", "off = y <= 0", "off = y < 0"),
    Mutant("backward", "NaN taken for inactive", "off = y <= 0", "off = (y > 0) == 0"),
    Mutant("backward", "L1 gradient forgotten", "out_dtype=ACC) + lam\n", "out_dtype=ACC)\n"),
    Mutant("backward", "scale missing on the decoder", "d_dec * scale", "d_dec"),
    Mutant("backward", "scale missing on the bias", "d_bias * scale", "d_bias"),
    Mutant("backward", "rank-one pre-bias term forgotten", "d_enc -= d_bias[:, None] * pre[None, :]", "d_enc -= 0.0"),
    Mutant(
        "backward", "operands of dW_dec swapped", "tl.dot(z.to(r.dtype), r, d_dec", "tl.dot(z.to(r.dtype), x, d_dec"
    ),
    Mutant(
        "backward",
        "residual of dictionary 0 used for all",
        "residual_ptr += k.to(tl.int64) * B * D",
        "residual_ptr += 0",
    ),
    Mutant(
        "backward",
        "splits overlap by a tile",
        "tl.minimum(begin + split_rows, B)",
        "tl.minimum(begin + split_rows + BB, B)",
    ),
    Mutant(
        "backward",
        "every split writes the first one's place",
        "out = split.to(tl.int64) * split_stride",
        "out = split.to(tl.int64) * 0",
    ),
    Mutant(
        "backward",
        "gradients stored into the next dictionary",
        "tl.store(d_dec_ptr + out + w_offset, d_dec * scale, mask=w_mask)",
        "tl.store(d_dec_ptr + out + w_offset, d_dec * scale)",
    ),
    Mutant("backward", "firings of padded rows counted", "active = active & in_batch[None, :]", "active = active"),
    Mutant("reduce", "last part dropped", "(parts < S)[:, None]", "(parts < S - 1)[:, None]"),
    Mutant("reduce", "counter overwritten instead of added to", "if ACCUMULATE:", "if False:"),
    Mutant("prebias", "fold with the wrong sign", "folded = bias - tl.sum", "folded = bias + tl.sum"),
    Mutant("prebias", "encoder's share of the gradient forgotten", "total -= tl.sum", "total -= 0 * tl.sum"),
    Mutant("adam", "norm not restored", "w = tl.div_rn(w, tl.broadcast_to", "w = tl.div_rn(w, 1 + 0 * tl.broadcast_to"),
    Mutant(
        "adam",
        "projection along the wrong sign",
        "g -= tl.sum(g * w, 1)[:, None] * w",
        "g += tl.sum(g * w, 1)[:, None] * w",
    ),
    Mutant("adam", "second moment from g, not its square", "B2M * g * g", "B2M * g"),
    Mutant(
        "adam",
        "rate of the first dictionary for all",
        "rate = tl.load(rate_ptr + k)\n\n",
        "rate = tl.load(rate_ptr)\n\n",
    ),
    Mutant("adam", "operands copied before the update", "dec_operand_ptr + at, w.to(", "dec_operand_ptr + at, m.to("),
    Mutant(
        "adam",
        "32-bit offset into the weights",
        "at = features[:, None].to(tl.int64) * D",
        "at = features[:, None] * D",
    ),
    Mutant("lists", "bit where the code is exactly 0", "off = y <= 0", "off = y < 0"),
    Mutant("lists", "no bit for NaN", "off = y <= 0", "off = (y > 0) == 0"),
    Mutant("lists", "bits of padded rows", "words & batch_bits[:, None]", "words"),
    Mutant("lists", "bits of padded features", "words & _first_bits(left)[None, :]", "words"),
    Mutant("lists", "bits of rows in reverse", "row_bit = (1 << (", "row_bit = (1 << 31 - ("),
    Mutant("lists", "words of dictionary 0 for all", "word = tl.load(words_ptr + k)", "word = tl.load(words_ptr)"),
    Mutant("lists", "same word for every tile of features", "word += BF // 32", "word += 0"),
    Mutant("lists", "upper half of a word not counted", "(words + (words >> 16)) & 0x3F", "words & 0x3F"),
    Mutant(
        "lists",
        "features counted over one block of words",
        "tl.range(begin, end, BW):\n        place = first + "
        "tl.arange(0, BW)\n        mask = inside[:, None] & (place < end)[None, :]\n        words = tl.load(at",
        "tl.range(begin, begin + 1, BW):\n        place = first + tl.arange(0, BW)\n        mask = inside[:, None] & "
        "(place < end)[None, :]\n        words = tl.load(at",
    ),
    Mutant("lists", "prefix of the whole sweep, not of the dictionary", "at += base - before", "at += base"),
    Mutant(
        "lists",
        "list begins where it should end",
        "other=0) - tl.load(counts_ptr + out",
        "other=0) - 0 * tl.load(counts_ptr + out",
    ),
    Mutant(
        "lists", "last bit of the fullest word left out", "tl.max(tl.max(bits, 1), 0)", "tl.max(tl.max(bits, 1), 0) - 1"
    ),
    Mutant("lists", "stores past the dictionary's region", "mask=some & (to < limit)", "mask=some"),
    Mutant(
        "lists",
        "features numbered within the dictionary",
        "number = tl.load(offsets_ptr + k) if BY_ROW else 0",
        "number = 0",
    ),
    Mutant("lists", "place not carried to the next words", "at += tl.sum(bits, 1)", "at += 0"),
    Mutant(
        "lists",
        "words of a line in the wrong order",
        "tl.cumsum(bits, 1) - bits",
        "tl.cumsum(bits, 1, reverse=True) - bits",
    ),
    Mutant(
        "lists",
        "32-bit offset into the encoder",
        "w_offset = features[:, None].to(tl.int64) * D",
        "w_offset = features[:, None] * D",
    ),
    Mutant(
        "sparse",
        "bias forgotten",
        "tl.sum(w_enc * x[None, :], 1) + tl.load",
        "tl.sum(w_enc * x[None, :], 1) + 0 * tl.load",
    ),
    Mutant("sparse", "L1 of the first entries only", "l1 += z", "l1 = z"),
    Mutant("sparse", "pre-bias not added back", "x_hat = pre\n", "x_hat = 0 * pre\n"),
    Mutant(
        "sparse",
        "residual of dictionary 0 overwritten",
        "tl.store(residual_ptr + group * D + at",
        "tl.store(residual_ptr + at",
    ),
    Mutant(
        "sparse", "residual of dictionary 0 used for all", "residual_ptr += k.to(tl.int64) * B * D", "residual_ptr += 0"
    ),
    Mutant(
        "sparse", "last row of a tile left out", "tl.minimum(BR, B - tile * BR)", "tl.minimum(BR - 1, B - tile * BR)"
    ),
    Mutant("sparse", "L1 gradient forgotten", "tl.sum(r * w_dec[None, :], 1) + lam", "tl.sum(r * w_dec[None, :], 1)"),
    Mutant(
        "sparse",
        "L1 gradient of entries past the list",
        "tl.where(live, tl.sum(r * w_dec[None, :], 1) + lam, 0.0)",
        "tl.sum(r * w_dec[None, :], 1) + lam",
    ),
    Mutant("sparse", "NaN counted as fired", "(live & (y == y))", "live"),
    Mutant("sparse", "scale missing on the encoder", "d_enc * scale", "d_enc"),
    Mutant("sparse", "rank-one pre-bias term forgotten", "d_enc -= bias_gradient * tl.load", "d_enc -= 0 * tl.load"),
    Mutant(
        "sparse",
        "operands of dW_dec swapped",
        "d_dec += tl.sum(z[:, None] * r, 0)",
        "d_dec += tl.sum(z[:, None] * x, 0)",
    ),
    Mutant(
        "sparse",
        "list of the next feature",
        "stop = shift + tl.load(ends_ptr + feature)\n",
        "stop = shift + tl.load(ends_ptr + feature) + 1\n",
    ),
    Mutant(
        "sparse",
        "32-bit offset into the atoms",
        "offset = features[:, None].to(tl.int64) * D",
        "offset = features[:, None] * D",
    ),
)


def caught_by(mutant: Mutant, folder: Path) -> str | None:
    """The check that fails on the mutant, and how; None where all pass."""
    kernels = Kernels().with_mutant(mutant.module, mutant.load(folder))
    checks = SPARSE_CHECKS if mutant.module in ("lists", "sparse") else CHECKS + FAR_CHECKS
    # Those named for the kernel first: most mutants fall to them at once.
    for check in sorted(checks, key=lambda check: mutant.module not in check.__name__):
        try:
            check(kernels)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return f"{check.__name__}: {reason}"
        finally:
            interpreter_shim.forget()
    return None
