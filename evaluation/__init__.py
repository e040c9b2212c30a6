"""Measuring a policy: held-out evidence, benchmarks, election."""
