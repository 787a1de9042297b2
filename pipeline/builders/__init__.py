"""Builders: models made of models."""
