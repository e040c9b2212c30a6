"""SER's shared vocabulary: samples, claims, verdicts, the tag grammar and geometry. Imports no torch, ray or vllm."""
