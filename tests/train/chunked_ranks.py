"""`mm1` with a loss in chunks at the sizes of tests."""

from mm1 import cli
from mm1.model import loss


def main() -> None:
    loss.LOGITS_AT_ONCE = 4096
    cli.main()
