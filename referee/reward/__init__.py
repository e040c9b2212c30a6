"""The reward of a completion: a weighted sum of named terms declared in YAML (docs/reward.md)."""
