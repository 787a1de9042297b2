"""Kinds: what each kind of method is given and gives, one file each, with the marker of its methods."""
