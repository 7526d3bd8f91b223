"""A student's plan, tuned without training."""
