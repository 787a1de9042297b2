"""Judges: what a model said of answers, in a pool of questions about them, to a score for each."""
