"""What the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def completed(words: str) -> list[str]:
    """Return what bash offers for the last word, as the script of `mm1 --install-completion` asks for it."""
    place = len(words.split(" ")) - 1
    environment = {"_MM1_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    command = [sys.executable, "-m", "mm1"]
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mm1 pre", ["pretrain"]),
        ("mm1 pretrain mm1-3", ["mm1-3b", "mm1-3b-moe", "mm1-30b"]),
        ("mm1 evaluate runs/demo --tasks easy-vqa,scenes-c", ["easy-vqa,scenes-caption"]),
        ("mm1 recipe show sft-d", ["sft-demo"]),
        ("mm1 study run laptop/re", ["laptop/resolution"]),
        ("mm1 model show mm1-tiny mm1-7", ["mm1-7b", "mm1-7b-moe"]),
        ("mm1 evaluate --det", ["--detailed-shots"]),
    ],
)
def test_names_are_completed(words: str, offered: list[str]) -> None:
    assert sorted(completed(words)) == sorted(offered)
