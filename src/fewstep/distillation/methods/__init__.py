"""One file a method, and all of them by name."""
