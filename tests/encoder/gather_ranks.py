"""What one of several ranks computes of a contrastive loss, for `test_ranks.py`."""

from pathlib import Path

import torch

from mm1.encoder.contrastive import Temperature, sigmoid_loss, softmax_loss
from mm1.train.parallel import join_ranks
from tests.encoder.test_contrastive import batch

LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}


def write_gradients(folder: Path) -> None:
    """Write the sum of the losses, and the gradients of this rank's rows and of the temperature, to rank-N.pt."""
    with join_ranks("cpu") as world:
        results = {}
        for kind, loss in LOSSES.items():
            for local in (True, False):
                images, texts = (rows.detach().chunk(world.size)[world.rank].requires_grad_() for rows in batch(7, 6))
                temperature = Temperature(5.0, -2.0 if kind == "sigmoid" else None, 100).double()
                total, rows = loss(images, texts, temperature, world, local=local)
                total.backward()
                results[f"{kind}/{local}"] = {
                    "total": total.detach(),
                    "rows": rows,
                    "images": images.grad,
                    "texts": texts.grad,
                    "log_scale": temperature.log_scale.grad,
                }
        torch.save(results, folder / f"rank-{world.rank}.pt")
