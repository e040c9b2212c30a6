"""Datasets: files of several formats, read into Samples, mixed, checked and converted (docs/data.md)."""

from rollout.dataset.read import read_dataset

__all__ = ["read_dataset"]
