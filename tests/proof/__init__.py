"""Proof: what holds for every sampler on every grid and schedule, whatever the network."""
