"""Make `losses.json` with open_clip's own losses, on the features that `test_contrastive.py` uses.

    pip install --no-deps --target FOLDER open_clip_torch==3.3.0
    PYTHONPATH=src:. python tests/encoder/golden/make_losses.py FOLDER

Only its file of losses is read: the whole package wants torchvision.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from tests.encoder.test_contrastive import OPEN_CLIP_CASES, batch, gradient

folder, here = Path(sys.argv[1]), Path(__file__).parent
specification = importlib.util.spec_from_file_location("open_clip_loss", folder / "open_clip" / "loss.py")
assert specification is not None
assert specification.loader is not None
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)

results = []
for kind, seed, count, width, scale, bias in OPEN_CLIP_CASES:
    images, texts = batch(seed, count, width)
    log_scale = torch.tensor(scale, dtype=torch.float64).log().requires_grad_()
    if kind == "softmax":
        loss = module.ClipLoss()(images, texts, log_scale.exp())
    else:
        loss = module.SigLipLoss()(images, texts, log_scale.exp(), torch.tensor(bias, dtype=torch.float64))
    loss.backward()
    results.append(
        {
            "kind": kind,
            "loss": loss.item(),
            "images": gradient(images).tolist(),
            "texts": gradient(texts).tolist(),
            "log_scale": gradient(log_scale).item(),
        }
    )
(here / "losses.json").write_text(json.dumps(results) + "\n")
