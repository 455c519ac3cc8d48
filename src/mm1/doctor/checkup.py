"""The check-up as a whole: what `mm1 doctor` shows, and what it warns of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mm1.doctor.extras import extras
from mm1.doctor.machine import Machine, Place, examine, places, versions

_LEAST_MEMORY = 4 * 2**30
"""Bytes that the demo's training reaches (benchmarks/README.md)."""
_LEAST_DISK = 5 * 2**30
"""Bytes for the demo's corpora, downloads and checkpoints, with room to spare."""


def checkup() -> RenderableType:
    """Examine the machine and return what to print."""
    machine, found, lacking = examine(), places(), extras()
    sections = {
        "device": _device(machine),
        "machine": _machine(machine, found),
        "extras": _extras(lacking),
        "versions": versions(),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, rows in sections.items():
        table.add_row(Text(title, "bold"), "")
        for name, value in rows.items():
            table.add_row(f"  {name}", value)
    warnings = list(warn(machine, found))
    said = [Text(f"- {warning}", "yellow") for warning in warnings] or [Text("nothing to warn of", "green")]
    return Group(table, Text("what will be slow, or fail", "bold"), *said)


def warn(machine: Machine, found: Mapping[str, Place]) -> Iterator[str]:
    """Yield a sentence for whatever will be slow on a machine, or fail.

    Args:
        machine: The machine.
        found: The folders of data and runs.
    """
    if machine.device == "cpu":
        yield "no GPU: the recipes demo, laptop, clip-demo, sft-demo and mm1-tiny are made for CPUs; others take years"
        if not machine.bfloat16:
            yield "this CPU has no AVX512-BF16 or AMX: training is in float32, at half the speed or less"
    if machine.device.startswith("mps"):
        yield "mm1 was never tried on Apple's GPUs (MPS): if something fails, set train.device: cpu, or --device cpu"
    if machine.threads < machine.cores:
        yield (
            f"torch computes with {machine.threads} threads on {machine.cores} cores: OMP_NUM_THREADS={machine.cores} "
            "would use all"
        )
    if machine.load is not None and machine.load > machine.cores:
        yield f"the machine is busy: {machine.load:.1f} processes on {machine.cores} cores; the speeds above suffer too"
    if machine.free_memory is not None and machine.free_memory < _LEAST_MEMORY:
        yield f"{_gb(machine.free_memory)} of memory are free, and the demo takes up to {_gb(_LEAST_MEMORY)}"
    if machine.compiler is None and machine.device == "cpu":
        yield "no C++ compiler: train.compile: auto compiles nothing; install g++ to have it"
    for name, place in found.items():
        if not place.writable:
            variable = "MM1_CACHE" if name == "cache" else "MM1_DATA"
            yield f"{place.path.absolute()}: the folder of {name} can't be written: go elsewhere, or set {variable}"
        elif name != "cache" and place.free < _LEAST_DISK:
            yield f"{place.path.absolute()}: {_gb(place.free)} are free, and the demo takes up to {_gb(_LEAST_DISK)}"


def _device(machine: Machine) -> dict[str, str]:
    hardware = "in hardware" if machine.bfloat16 else "not in hardware"
    rows = {
        "auto is": f"{machine.device} ({machine.device_name})",
        "training": f"{machine.dtype}; this device computes bfloat16 {hardware}",
        "attention": f"{machine.attention}, for rows of 4,096 tokens where the recipe names none",
        "peak": f"{machine.peak / 1e12:.3g} TFLOP/s ({machine.peak_from})",
    }
    if machine.gpu_memory is not None:
        rows["memory"] = _gb(machine.gpu_memory)
    if machine.demo_step is not None:
        rows["demo"] = f"{machine.demo_step:.2f} s for one of its training steps, measured on one layer"
    return rows


def _machine(machine: Machine, found: Mapping[str, Place]) -> dict[str, str]:
    free = "" if machine.free_memory is None else f", {_gb(machine.free_memory)} of them free"
    return {
        "cores": f"{machine.cores}; torch computes with {machine.threads} threads",
        "memory": "unknown" if machine.memory is None else f"{_gb(machine.memory)}{free}",
        "compiler": machine.compiler or "none",
        **{
            f"{name} folder": f"{place.path.absolute()}: {place.there}; {_gb(place.free)} free on its disk"
            for name, place in found.items()
        },
    }


def _extras(lacking: Mapping[str, list[str]] | None) -> dict[str, str]:
    if lacking is None:
        return {"unknown": "mm1 isn't installed as a package: pip install -e . in its tree"}
    return {
        name: f"lacks {', '.join(missing)}: pip install 'mm1[{name}]'" if missing else "installed"
        for name, missing in lacking.items()
    }


def _gb(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
