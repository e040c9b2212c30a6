"""Everything that touches DeepSpeed."""

import os

import torch

# Told, DeepSpeed does not warn about what it found; it reads this when it is imported.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
