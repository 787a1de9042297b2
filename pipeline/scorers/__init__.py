"""Scorers: one number per answer, from its text and its siblings."""
