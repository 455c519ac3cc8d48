"""Everything that a user does with a model's folder, in tensors: `python use.py OUT FOLDER...` where mm1 is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (90, 120, 130)}


class Absent:
    """A finder under which mm1 is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "mm1":
            raise ModuleNotFoundError("No module named 'mm1'", name="mm1")


def picture(colour: str, width: int, height: int) -> PILImage.Image:
    """A picture whose halves differ."""
    image = PILImage.new("RGB", (width, height), COLOURS[colour])
    image.paste((10, 200, 30), (0, 0, width // 3, height // 2))
    return image


@torch.no_grad()
def use(folder: Path, again: Path | None = None) -> dict[str, torch.Tensor]:
    """Load a model by the Auto classes and use it; save it again if a folder is given."""
    from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

    processor: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
    texts = ["<image> is red <image>", "<image>"]
    pictures = [[picture("red", 40, 20), picture("blue", 16, 16)], [picture("grey", 21, 50)]]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    content: list[dict[str, Any]] = [
        {"type": "image", "image": pictures[0][0]},
        {"type": "text", "text": "What is this?"},
    ]
    turns = [{"role": "user", "content": content}]
    chat = processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    found = {f"inputs.{name}": value for name, value in inputs.items()}
    found |= {f"chat.{name}": value for name, value in chat.items()}
    found["logits"] = model(**inputs).logits
    found["chat.logits"] = model(**chat).logits
    found["words"] = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    found["beams"] = model.generate(**inputs, max_new_tokens=4, num_beams=2, do_sample=False)
    pipe: Any = pipeline("image-text-to-text", model=str(folder), trust_remote_code=True, device="cpu")
    said = pipe(text=turns, max_new_tokens=5, return_full_text=False)[0]["generated_text"]
    found["pipeline"] = torch.tensor(list(said.encode()), dtype=torch.uint8)
    if again is not None:
        model.save_pretrained(again)
        processor.save_pretrained(again)
    return {name: value.contiguous() for name, value in found.items()}


def main() -> None:
    """Use each folder, save it again and use that; mm1 is hidden."""
    sys.meta_path.insert(0, Absent())
    from safetensors.torch import save_file

    out, *folders = map(Path, sys.argv[1:])
    for number, folder in enumerate(folders):
        again = out / f"again-{number}"
        save_file(use(folder, again), out / f"{number}.safetensors")
        save_file(use(again), out / f"again-{number}.safetensors")
    print(*sorted(name for name in sys.modules if name.partition(".")[0] == "mm1"))


if __name__ == "__main__":
    main()
