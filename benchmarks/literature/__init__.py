"""What papers and textbooks say of samplers, each claim beside the code that measures it here; `claims.py` runs it."""
