"""Measurements of plans and models: what a sampler does, and how good it is."""
