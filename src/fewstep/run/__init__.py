"""Drivers: loops that run any plan with any denoiser, and know no solver by name."""
