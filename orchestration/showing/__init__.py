"""Samples of a dataset as a policy is shown them: `ser data show` (docs/data.md)."""
