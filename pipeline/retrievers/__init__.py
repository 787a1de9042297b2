"""Retrievers: which texts of a table of knowledge speak most to a prompt."""
