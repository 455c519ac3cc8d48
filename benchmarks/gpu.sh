#!/usr/bin/env bash
# What only a GPU can show, in under ten minutes: see gpu.py.
#
#   benchmarks/gpu.sh               # on a machine with one GPU
#   benchmarks/gpu.sh --tiny        # every part in small, on a CPU: whether the script itself works
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
