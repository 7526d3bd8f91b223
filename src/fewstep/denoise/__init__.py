"""Denoisers: from any network to `x, t -> estimate of x0`, with guidance and projections around it."""
