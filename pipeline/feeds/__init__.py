"""Feeds: what a step is made of."""
