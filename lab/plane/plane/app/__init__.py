"""Plane's web API."""
