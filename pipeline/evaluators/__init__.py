"""Evaluators: what a model is worth on a pool, alone or beside another model."""
