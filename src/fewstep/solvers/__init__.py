"""Solvers: functions on a tape, one family a file, each formula above its code; and their names."""
