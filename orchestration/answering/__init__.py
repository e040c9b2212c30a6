"""Answers with evidence, outside training: `ser answer`, `ser serve` (docs/answering.md)."""
