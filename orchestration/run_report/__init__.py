"""The report of `ser report` on training runs (docs/report.md)."""
