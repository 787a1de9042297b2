"""Augmentations: other inputs than the rows have, anew in every step."""
