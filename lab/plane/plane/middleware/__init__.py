"""Plane's middleware."""
