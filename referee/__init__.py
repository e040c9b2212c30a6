"""The local checker: reward terms, verification questions, verdicts, and how far verdicts can be trusted."""
