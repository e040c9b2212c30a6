"""Datasets: files of several formats, each read into Samples, mixed, checked and converted (docs/data.md)."""

from rollout.dataset.read import read_dataset

__all__ = ["read_dataset"]
