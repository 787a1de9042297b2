"""Selectors: which answers are kept, and with what weight."""
