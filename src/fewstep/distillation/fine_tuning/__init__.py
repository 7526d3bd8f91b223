"""A student of few steps that learns something new and stays one."""
