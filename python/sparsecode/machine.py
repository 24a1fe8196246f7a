"""What this program runs on: versions and hardware, recorded with every result. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecode.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_RECORDED = ("sparsecode", "torch", "triton", "numpy", "tokenizers", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number, without importing them."""
    import platform
    from importlib import metadata  # a fifth of the time of a --help, and of no use to one

    found = {"python": platform.python_version()}
    for package in _RECORDED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def processor() -> str:
    """The processor's name as the operating system gives it."""
    import platform

    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*fields: str) -> str:
    """The first of these fields of /proc/cpuinfo; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                return value.strip()
    return ""


def cores() -> int:
    """Cores this process may use (its affinity, not the machine's total): its share of them where `ranks_here`."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // ranks_here())


def ranks_here() -> int:
    """How many processes of one work run on this machine, as torchrun says in LOCAL_WORLD_SIZE."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(said)) if said.isdecimal() else 1


def memory() -> int | None:
    """Bytes of memory of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system has these names
        return None


def usable_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or less where a container or `ulimit -v` says so."""
    limits = [memory(), *_cgroup_limits(), _address_space()]
    return min((limit for limit in limits if limit is not None), default=None)


def _cgroup_limits() -> list[int]:
    """Limits of the groups that this process is in: Linux."""
    folder = Path("/sys/fs/cgroup")
    files = [folder / "memory.max", folder / "memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            own = folder / line.rpartition(":")[2].lstrip("/")
            files += [place / "memory.max" for place in (own, *own.parents) if place.is_relative_to(folder)]
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # not there, or `max`
            found.append(int(file.read_text()))
    return found


def _address_space() -> int | None:
    """What is left of the limit on the addresses of a process; None where there is none."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        return max(0, limit - used)
    except (ImportError, OSError, ValueError):
        return None


def describe() -> dict[str, str | int]:
    """One flat record of the machine, for `config.json` and benchmark rows."""
    import platform

    return {"system": platform.system(), "machine": platform.machine(), "processor": processor(), "cores": cores()}


# What multiplies numbers of a type without turning each into float32 first, as the system names it: on x86, Linux on
# Arm, and macOS.
_FAST = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16", "FEAT_BF16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp", "FEAT_FP16"},
}


def computes_in(saved: torch.dtype, device: torch.device, flags: frozenset[str] | None = None) -> torch.dtype:
    """The type to compute in where a model was saved in `saved`: float32 where that would be emulated.

    Args:
        saved: float32, bfloat16 or float16.
        device: where it runs; only the processor emulates.
        flags: what the processor can do, as `processor_flags` names it; default: this one.
    """
    import torch

    wanted = _FAST.get(str(saved).removeprefix("torch."))
    if device.type != "cpu" or wanted is None:
        return saved
    return saved if wanted & (processor_flags() if flags is None else flags) else torch.float32


@functools.cache
def processor_flags() -> frozenset[str]:
    """What the processor can do, in the operating system's words; empty where it does not tell."""
    if words := _cpuinfo("flags", "Features"):
        return frozenset(words.split())
    return frozenset(name for name in ("FEAT_BF16", "FEAT_FP16") if _sysctl(f"hw.optional.arm.{name}"))


def _sysctl(name: str) -> bool:
    """Whether macOS says that the processor has a feature; False elsewhere."""
    import ctypes

    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    except (OSError, AttributeError, TypeError):
        return False
    return failed == 0 and value.value != 0


def wide(values: torch.Tensor) -> torch.Tensor:
    """The values in float64, where they are, or on the processor where their device has no float64 (MPS)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute in one thread, so that sums have the same bits however many it may use."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def torch_device(name: str, *, mps: bool = True) -> torch.device:
    """The torch device that a `device` setting means; `auto` is the fastest one here.

    Args:
        name: cpu, cuda, mps or auto.
        mps: whether `auto` may choose Apple's GPU, for what runs fast on it.

    Raises:
        InvalidSetting: no such device on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps and torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidSetting(f"device '{name}' cannot be used here ({reason})", remedy="device") from error
    return device


@functools.cache
def keep_freed_memory() -> None:
    """Lets this process keep up to 1 GB of freed memory instead of giving it back and fetching it again.

    A forward pass frees and allocates the same few large tensors over and over; with glibc's own settings each round
    gives their pages back and touches them afresh, which costs up to a third of its time on a virtual machine. Does
    nothing where the C library is another one.
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # names of mallopt(3)
    with contextlib.suppress(OSError, AttributeError, TypeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(mmap_threshold, 32 << 20)  # the most that it takes
        c_library.mallopt(trim_threshold, 1 << 30)
