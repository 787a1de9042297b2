"""Memo: what is kept beside the graph, so that nothing is asked or paid twice."""
