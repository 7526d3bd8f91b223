"""Conformance: the same sampler in another library must give the same table (see `peers.py`)."""
