"""What the learner does on one GPU: `python -m benchmarks.gpu` (docs/gpu.md).

Needs torch, transformers, numpy and deepspeed; the part `zero_step` also accelerate, without which transformers does
not load a model into ZeRO-3, and it and `copies` xxhash. The learner's own code is measured, not copies of it.
"""
