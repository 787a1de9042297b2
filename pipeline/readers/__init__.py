"""Readers: one number per answer, from a model that reads it."""
