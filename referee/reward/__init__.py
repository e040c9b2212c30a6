"""The reward of a completion: named terms, declared in YAML, summed (docs/reward.md)."""
