"""Pictures of coloured shapes with captions: drawn, described, checked, and a small text-to-image model of them."""
