"""The OpenAI-compatible server of `ser serve` (docs/answering.md)."""
