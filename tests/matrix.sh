#!/usr/bin/env bash
# Runs the tests on every Python of 3.11 to 3.14 that this machine has, each in an environment of its own, and says what was
# tried and how it ended. Arguments go to pytest: tests/matrix.sh tests/test_recipe.py
set -u
cd "$(dirname "$0")/.."
failed=0
mkdir -p .matrix

find_python() { # the first Python of a version that starts: on the path, of pyenv, of uv
  local candidate
  for candidate in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python \
    "$(command -v uv >/dev/null && uv python find "$1" 2>/dev/null)"; do
    # A shim of pyenv lies on the path for versions that it doesn't start.
    [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null && echo "$candidate" && return 0
  done
  return 1
}

for version in 3.11 3.12 3.13 3.14; do
  python=$(find_python "$version") || { echo "Python $version: not on this machine, not tried"; continue; }
  venv=".matrix/$version"
  if ! make --silent "$venv/.dev" PYTHON="$python" VENV="$venv" >"$venv.log" 2>&1; then
    echo "Python $version: the packages can't be installed, see $venv.log"
    failed=1
    continue
  fi
  if "$venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@" >"$venv.log" 2>&1; then
    echo "Python $version: $(tail -n 1 "$venv.log")"
  else
    echo "Python $version: failed, see $venv.log: $(tail -n 1 "$venv.log")"
    failed=1
  fi
done
exit $failed
