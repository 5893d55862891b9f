"""Plane's background tasks, one module each."""
