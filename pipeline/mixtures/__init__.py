"""Mixtures: the share of every domain in what follows."""
