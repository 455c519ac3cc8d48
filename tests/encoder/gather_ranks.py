"""What one of several ranks computes of a contrastive loss; run by torchrun from `test_ranks.py`.

Writes the sum of the losses, and the gradients of this rank's rows and of the temperature, to OUT/rank-N.pt.
"""

import sys
from pathlib import Path

import torch

from mm1.encoder.contrastive import Temperature, sigmoid_loss, softmax_loss
from mm1.ranks import end_rank
from mm1.train.parallel import join_ranks
from tests.encoder.test_contrastive import batch

LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}

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
    torch.save(results, Path(sys.argv[1]) / f"rank-{world.rank}.pt")

end_rank(0)
