"""Fetches the source distribution of the installed `transformers`: its `tests` folder holds the library's common tests.

python -m tests.peers.fetch     # to .cache/peers, outside version control; prints where
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers

from mm1.files import whole_folder

CACHE = Path(__file__).parents[2] / ".cache" / "peers"


def tests_folder() -> Path:
    """Return where the common tests are, or will be once fetched; `TRANSFORMERS_TESTS` names another place."""
    name = f"transformers-{transformers.__version__}"
    return Path(os.environ.get("TRANSFORMERS_TESTS") or CACHE / name / name / "tests")


def fetch() -> Path:
    """Download and unpack the source distribution, unless it is there; return its tests."""
    folder = tests_folder()
    if not (folder / "test_modeling_common.py").is_file():
        version = transformers.__version__
        with whole_folder(CACHE / f"transformers-{version}") as partial:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
            subprocess.run([*pip, "--dest", partial, f"transformers=={version}"], check=True)
            (archive,) = partial.glob("transformers-*.tar.gz")
            with tarfile.open(archive) as content:
                content.extractall(partial, filter="data")
            archive.unlink()
    return folder


if __name__ == "__main__":
    print(fetch())
