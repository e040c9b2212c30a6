#!/usr/bin/env bash
# install.sh cpu|gpu: creates or completes .venv with exactly the packages of requirements/cpu.lock or gpu.lock. Can be
# run again after an interruption. One .venv holds one of the two.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD=$1
PYTHON=${PYTHON:-python3.11}
CPU_INDEX=https://download.pytorch.org/whl/cpu

"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
    echo "install: $PYTHON is not Python 3.11; install it, or give its path: make PYTHON=/path/to/python3.11" >&2
    exit 2
}
held=none
[ ! -d .venv ] || held=$([ -e .venv/gpu ] && echo gpu || echo cpu)
if [ "$held" != none ] && [ "$held" != "$BUILD" ]; then
    echo "install: .venv holds the $held build; to replace it: make clean, then make install again" >&2
    exit 2
fi
[ -x .venv/bin/pip ] || "$PYTHON" -m venv .venv
[ "$BUILD" = cpu ] || touch .venv/gpu

echo "install: building .venv from requirements/$BUILD.lock; this takes a few minutes the first time" >&2
# --no-deps: the locks are complete.
if [ "$BUILD" = gpu ]; then
    .venv/bin/pip install -qq --no-deps --require-hashes -r requirements/gpu.lock
else
    # CPU builds of torch and torchvision come from PyTorch's index if it is reachable. Otherwise torch must come from
    # pip's configured sources, and install/torchvision_ops.py makes PyPI's CUDA build of torchvision usable.
    index=()
    if .venv/bin/python -c "import urllib.request as r; r.urlopen('$CPU_INDEX/torch/', timeout=10)" 2>/dev/null; then
        index=(--extra-index-url "$CPU_INDEX")
    fi
    # The lock leaves out torchaudio and torchcodec on purpose. vLLM requires them, but PyPI has only CUDA builds, and if
    # they fail to load, importing transformers and vLLM fails, too.
    .venv/bin/pip install -qq --no-deps "${index[@]}" -r requirements/cpu.lock
    .venv/bin/python install/torchvision_ops.py
fi
.venv/bin/pip install -qq --no-deps --no-build-isolation -e .

if [ "$BUILD" = gpu ]; then
    .venv/bin/python -c 'import torch; assert torch.version.cuda' || {
        echo "install: the torch in .venv is no CUDA build; remove it, by make clean, and install again" >&2
        exit 1
    }
else
    .venv/bin/python -c 'import torch; assert torch.version.cuda is None' 2>/dev/null || {
        echo "install: pip found no CPU build of torch; make $CPU_INDEX reachable," \
            "or set PIP_FIND_LINKS to a folder with the wheel" >&2
        exit 1
    }
fi
