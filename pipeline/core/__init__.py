"""Core: how a stage and a method are declared, found and run; it never counts for what they give."""
