"""Operators: prompts of a pool, or answers to them, become prompts of another; a model is asked by `generate` alone."""
