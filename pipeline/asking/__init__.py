"""Asking: a model is asked, never twice."""
