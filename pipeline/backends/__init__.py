"""Backends: a model folder is opened with one, and asked."""
