#!/usr/bin/env bash
# Shows that mm1 installs beside other libraries: uv resolves this tree with each of them, and with all together, under
# constraints-runtime.txt and for each Python. Nothing is installed but uv, in .matrix/uv. Arguments: versions of Python.
set -u
cd "$(dirname "$0")/.."
libraries=(gradio trackio s3fs datatrove trl peft lm-eval)
pythons=("${@:-3.11}")
failed=0
mkdir -p .matrix
[ -x .matrix/uv/bin/uv ] || { python3 -m venv .matrix/uv && .matrix/uv/bin/python -m pip install -qq uv; } || exit 1

resolves() { # resolves PYTHON LIBRARY...
  local python=$1 wanted
  shift
  wanted=$(printf '%s\n' "$PWD" "$@")
  if .matrix/uv/bin/uv pip compile --no-config --quiet --python-version "$python" -c constraints-runtime.txt \
    -o .matrix/resolved.txt - <<<"$wanted" 2>.matrix/resolve.log; then
    echo "Python $python, mm1 with $*: $(grep -c '==' .matrix/resolved.txt) packages, $(version torch), $(version "$1")"
  else
    echo "Python $python, mm1 with $*: no set of versions fits:"
    cat .matrix/resolve.log
    failed=1
  fi
}

version() { grep -E "^$1==" .matrix/resolved.txt | sed 's/ .*//; s/==/ /'; }

for python in "${pythons[@]}"; do
  for library in "${libraries[@]}"; do
    resolves "$python" "$library"
  done
  resolves "$python" "${libraries[@]}"
done
exit $failed
