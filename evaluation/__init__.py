"""Evaluation of a policy: held-out evidence, benchmarks, election."""
