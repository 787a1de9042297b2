"""Objectives: one loss per token that counts."""
