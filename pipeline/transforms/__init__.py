"""Transforms: signals made of signals, by what a whole table says about a row."""
