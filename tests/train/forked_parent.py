"""What processes that are forked share: their parent imports this once, and does once what each of them would do.

It imports modules that are loaded late, measures the peak of the CPU (0.3 seconds), and puts all objects where no
garbage collection of a child looks at them; a child would otherwise copy their memory.
"""

from __future__ import annotations

import gc

import torch

import mm1.cli
import mm1.evaluate.during
import mm1.train.pretrain  # noqa: F401
from mm1.train.efficiency import peak_flops

torch.set_num_threads(1)  # threads would not be there after a fork
peak_flops(torch.device("cpu"), None)
gc.collect()
gc.freeze()
