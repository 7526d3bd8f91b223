"""How a student is judged, while it learns and in the end."""
