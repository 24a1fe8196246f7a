"""`sparsecode doctor`: what this machine has, and what will be used of it."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from sparsecode import machine
from sparsecode.cli.options import debug_option, json_option, run_option
from sparsecode.errors import CheckFailed, RunInvalid, SparsecodeError
from sparsecode.pipeline.advice import told
from sparsecode.pipeline.run import Run

# What a package that need not be there is for.
OPTIONAL = {
    "pyarrow": "--text with .parquet files",
    "backports.zstd": "--text with .zst files",
    "transformers": "Hugging Face models",
    "datasets": "--hf-dataset",
}
_DEFAULT_PRESET_BYTES = 2e9  # the text, the tokens and 6 million rows of 128 float16, rounded up
_DEFAULT_WIDTH = 128  # of its MLP


@click.command("doctor")
@run_option
@click.option("--gpu", is_flag=True, help="Check the GPU engine on the GPU here, and time it beside the model.")
@json_option
@debug_option
def command(run: Path, gpu: bool, as_json: bool) -> None:
    """Show what this machine has, and which engine will be used.

    Exit code 1 where something is missing that the default run needs, or where a check of --gpu fails.
    """
    from sparsecode.cli.output import print_json

    found = examine(run)
    if gpu:
        from sparsecode.pipeline.progress import say
        from sparsecode.sweep.engines.gpu.check import gpu_check

        found["gpu_check"] = gpu_check(say=say)
        found["problems"] += [
            f"GPU check '{check['name']}': {check['detail']}"
            for check in found["gpu_check"]["checks"]
            if not check["passed"]
        ]
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(lines(found)))
    if found["problems"]:
        raise CheckFailed("; ".join(found["problems"]))


def examine(run: Path) -> dict[str, Any]:
    """The facts, as a JSON value; "problems" lists what keeps the default run from working."""
    problems: list[str] = []
    return {
        "versions": machine.versions(),
        "machine": machine.describe() | {"memory_bytes": machine.usable_memory()},
        "simd": _simd(problems),
        "disk": _disk(run, problems),
        "torch": _torch(problems),
        "triton": _triton(),
        "engine": _engine(),
        "sweep": _sweep(run, problems),
        "optional": {package: _version(package) for package in OPTIONAL},
        "problems": problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts, for people."""
    from sparsecode.cli.describe import sweep_lines
    from sparsecode.cli.output import size

    about, simd, torch, disk = found["machine"], found["simd"], found["torch"], found["disk"]
    extras = [name for name in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni") if simd and simd[name]]
    gpus = [f"{gpu['name']}, {size(gpu['memory_bytes'])}" for gpu in (torch or {}).get("gpus", [])]
    memory = size(about["memory_bytes"]) if about["memory_bytes"] else "unknown"
    engine = found["engine"]
    rows = [
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        ("processor", f"{about['processor']}, {about['cores']} cores usable"),
        ("memory", memory),
        ("SIMD", ", ".join([simd["simd"], *extras]) if simd else "unknown"),
        ("disk", f"{size(disk['free_bytes'])} free in {disk['path']}" if disk else "unknown"),
        ("torch", f"devices {', '.join(torch['devices'])}; {torch['threads']} threads" if torch else "cannot be used"),
        ("GPU", "; ".join(gpus) or "none"),
        ("Triton", found["triton"] or "none: GPUs will use plain torch"),
        ("engine", _spelled(engine)),
        ("train-dicts", "; ".join(sweep_lines(found["sweep"])) if found["sweep"] else "unknown"),
    ]
    for package, use in OPTIONAL.items():
        rows.append((package, found["optional"][package] or f"not installed; for {use}"))
    rows += _gpu_rows(found.get("gpu_check"))
    rows += [("problem", problem) for problem in found["problems"]] or [("problems", "none")]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}" for name, value in rows]


def _gpu_rows(result: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What --gpu found: how many checks passed, and each timing beside the model."""
    if result is None:
        return []
    passed = sum(check["passed"] for check in result["checks"])
    rows = [("GPU checks", f"{passed} of {len(result['checks'])} passed on {result['device']}")]
    for timing in result["timings"]:
        model, eager = (
            f"{timing[key]:.2f} ms" if timing[key] is not None else "unknown"
            for key in ("predicted_ms", "predicted_eager_ms")
        )
        text = (
            f"{timing['measured_ms']:.2f} ms, model {model}; torch autograd {timing['eager_ms']:.2f} ms, model {eager}"
        )
        rows.append((timing["name"], text))
    return rows


def _simd(problems: list[str]) -> dict[str, Any] | None:
    try:
        from sparsecode._core import cpu_features
    except ImportError as error:
        problems.append(f"the native core cannot be loaded ({error}); install sparsecode again")
        return None
    return dict(cpu_features())


def _disk(run: Path, problems: list[str]) -> dict[str, Any] | None:
    place = run.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        problems.append(f"{place} cannot be written to; choose another place with --run")
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        problems.append(f"{place}: {error.strerror}")
        return None
    if free < _DEFAULT_PRESET_BYTES:
        problems.append(f"{place} has {free / 1e9:.1f} GB free; the default preset takes up to 2 GB")
    return {"path": str(place), "free_bytes": free}


def _torch(problems: list[str]) -> dict[str, Any] | None:
    try:
        import torch
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported ({str(error).splitlines()[0]}); install it again")
        return None
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            capability = f"{found.major}.{found.minor}"
            gpus.append({"name": found.name, "memory_bytes": found.total_memory, "capability": capability})
    devices = ["cpu"] + [f"cuda:{index}" for index in range(len(gpus))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"devices": devices, "gpus": gpus, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}


def _triton() -> str | None:
    try:
        import triton
    except Exception:  # a broken install raises whatever it likes; it is the same as none
        return None
    return str(triton.__version__)


def _engine() -> dict[str, str | None]:
    """What `train-dicts --engine auto` would take, SPARSECODE_ENGINE considered."""
    try:
        from sparsecode.sweep.engines import choose_engine

        engine = choose_engine()
    except (ImportError, SparsecodeError) as error:
        return {"name": f"none ({error})", "path": None, "device": None}
    return {"name": engine.name, "path": getattr(engine, "path", None), "device": str(engine.device)}


def _sweep(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """What `train-dicts` would need, on what the run has harvested or on what the default run harvests."""
    from sparsecode.cli.describe import sweep_need

    run = Run(path)
    try:
        results = [record.get("result") or {} for key, record in run.config()["stages"].items() if "harvest/" in key]
        widths = [result["activation_dim"] for result in results if "activation_dim" in result] or [_DEFAULT_WIDTH]
        datasets = [{"activation_dim": dim} for dim in widths]
        return sweep_need({"kind": "run", "path": str(path), "datasets": datasets}, {})
    except RunInvalid as error:
        problems.append(told(error))
    except (ImportError, SparsecodeError):  # of the machine; its own lines say so
        pass
    return None


def _spelled(engine: dict[str, str | None]) -> str:
    path = f", instructions {engine['path']}" if engine["path"] else ""
    return f"{engine['name']}{path}" + (f", on {engine['device']}" if engine["device"] else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
