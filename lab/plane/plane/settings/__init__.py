"""Plane's settings modules: `common`, and `production` on top of it."""
