"""`mm1` with a loss in chunks at the sizes of tests: `torchrun -m tests.train.chunked_ranks pretrain ...`."""

from mm1 import cli
from mm1.model import loss

loss.LOGITS_AT_ONCE = 4096

if __name__ == "__main__":
    cli.main()
