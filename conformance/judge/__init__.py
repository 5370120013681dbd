"""Observations to verdicts: comparison, absolute checks, known deviations, changes."""
