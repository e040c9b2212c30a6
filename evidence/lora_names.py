"""Names of a published low-rank adapter's tensors: X.lora_A [rank, in], X.lora_B [out, rank] and X.lora_scale [] for a
linear layer X, whose merged weight is W + scale B A."""

A, B, SCALE = "lora_A", "lora_B", "lora_scale"
