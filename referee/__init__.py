"""The referee: reward terms, verification questions, verdicts, and measures of how far verdicts can be trusted."""
