"""Exporters: what was made here, in the files and columns that other tools read."""
