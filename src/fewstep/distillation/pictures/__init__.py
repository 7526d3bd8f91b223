"""What a student learns from: its teacher's pictures, or real ones."""
