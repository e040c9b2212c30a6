"""Reward terms: pure functions from a group's completions to one number each (docs/reward.md)."""
