"""Facts of this machine: what computes, in which precision and how fast; memory, disk, versions."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from mm1.devices import choose_device
from mm1.places import RUNS, cache_directory, cache_size, data_directory
from mm1.recipe import LanguageModelRecipe, TrainRecipe
from mm1.scaling.duration import STEP, seconds_of_pass
from mm1.train.capabilities import autocast_dtype, decoder_attention, multiplies_bfloat16
from mm1.train.efficiency import peak_flops
from mm1.train.run_directory import processor_name
from mm1.version import __version__, source_commit

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "huggingface-hub")


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        device: What `auto` chooses in training, evaluation and use.
        device_name: Its name.
        dtype: Precision of matrix products that `auto` chooses in training.
        bfloat16: Whether the device multiplies bfloat16 in hardware.
        attention: The decoder's attention in training where a recipe names none, for rows of 4,096 tokens.
        peak: Peak FLOP/s of the device in that precision.
        peak_from: The origin of the peak, in a few words.
        demo_step: Seconds of a training step of the demo; None on a GPU, where the measure doesn't hold.
        cores: Cores that this process may use.
        threads: Threads that torch computes with.
        load: Processes that wanted a core in the last minute, on average; None if the system doesn't say.
        memory: Bytes of memory of the machine; None if the system doesn't say.
        free_memory: Bytes of it that are free; None if the system doesn't say.
        gpu_memory: Bytes of the GPU's memory; None without one.
        compiler: The C++ compiler that torch.compile would use on a CPU; None: there is none.
    """

    device: str
    device_name: str
    dtype: str
    bfloat16: bool
    attention: str
    peak: float
    peak_from: str
    demo_step: float | None
    cores: int
    threads: int
    load: float | None
    memory: int | None
    free_memory: int | None
    gpu_memory: int | None
    compiler: str | None


def examine() -> Machine:
    """Look at the machine; speeds are measured, for about a second."""
    device = choose_device("auto", "device")
    dtype = autocast_dtype(TrainRecipe(), device)
    attention = decoder_attention(LanguageModelRecipe(), device, dtype, sequence_length=4096)
    peak, peak_from = peak_flops(device, dtype)
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    total, free = _memory()
    return Machine(
        device=str(device),
        device_name=gpu.name if gpu else processor_name(),
        dtype=str(dtype or torch.float32).removeprefix("torch."),
        bfloat16=multiplies_bfloat16(device),
        attention=attention if isinstance(attention, str) else attention[0],
        peak=peak,
        peak_from=peak_from,
        demo_step=STEP * seconds_of_pass(dtype) if device.type == "cpu" else None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory=total,
        free_memory=free,
        gpu_memory=gpu.total_memory if gpu else None,
        compiler=next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))), None),
    )


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory, all and free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
        known = all(name in os.sysconf_names for name in names)
        return (os.sysconf(names[0]) * os.sysconf(names[1]) if known else None), None
    sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    return sizes.get("MemTotal"), sizes.get("MemAvailable")


def versions() -> dict[str, str]:
    """Return the versions of mm1, with its commit, of Python, the system and the libraries that compute."""
    return {
        "mm1": f"{__version__}, commit {source_commit() or 'unknown'}",
        "Python": platform.python_version(),
        "system": platform.platform(terse=True),
        **{name: version(name) for name in LIBRARIES},
        "CUDA of torch": torch.version.cuda or "none: torch was built without it",
    }


@dataclass(frozen=True)
class Place:
    """A folder of mm1.

    Attributes:
        path: The folder.
        there: What is in it, in a few words.
        free: Free bytes of its disk.
        writable: Whether this user may write there.
    """

    path: Path
    there: str
    free: int
    writable: bool


def places() -> dict[str, Place]:
    """Return the folders of data and of runs, as seen from here, and that of copies in the cache.

    Raises:
        UserError: If `$MM1_CACHE_SIZE` is no size.
    """
    return {
        "data": _place(data_directory(), "corpus.json", "corpora"),
        "runs": _place(Path(RUNS), "recipe.yaml", "runs"),
        "cache": _place(cache_directory() / "folders", "*", f"copied; at most {cache_size() / 1e9:g} GB"),
    }


def _place(path: Path, marker: str, noun: str) -> Place:
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    count = len(list(path.glob(f"*/{marker}")))
    there = f"{count} {noun}" if path.is_dir() else "not there yet"
    return Place(path, there, shutil.disk_usage(above).free, os.access(above, os.W_OK))
