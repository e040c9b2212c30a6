"""The shared vocabulary of SER: what is asked, claimed, judged and trained on. Imports no torch, ray or vllm."""
