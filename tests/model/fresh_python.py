"""Programs in processes that have imported transformers and not mm1: all forked from one, which imports but once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = """
import json, os, sys, traceback
import transformers.pipelines
from transformers import (  # as its programs do; from here on each of them is loaded
    AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer
)
assert "mm1" not in sys.modules
for line in sys.stdin:
    program = json.loads(line)
    child = os.fork()
    if child:
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
        continue
    for number, file in ((0, os.devnull), (1, program["printed"]), (2, program["said"])):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = open(os.devnull)
    os.chdir(program["where"])
    sys.argv, sys.path[0], code = ["-c", *program["arguments"]], "", 1
    try:
        exec(compile(program["code"], "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


class FreshPython:
    """Runs programs as `python -c CODE ARGUMENTS` does, where transformers has been imported."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder, self._count = server, folder, 0

    def run(self, code: str, *arguments: object, where: Path) -> list[str]:
        """Run a program in a folder, which has to succeed; return the lines that it prints."""
        self._count += 1
        printed, said = (self._folder / f"{self._count}.{name}" for name in ("printed", "said"))
        program: dict[str, Any] = {"code": code, "arguments": [*map(str, arguments)], "where": str(where)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(program | {"printed": str(printed), "said": str(said)}) + "\n")
        self._server.stdin.flush()
        assert self._server.stdout.readline() == "0\n", said.read_text()
        return printed.read_text().splitlines()


@contextmanager
def fresh_python(folder: Path) -> Iterator[FreshPython]:
    """Start the process from which programs are forked; their output goes to the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as p:
        yield FreshPython(p, folder)
        assert p.stdin is not None
        p.stdin.close()
