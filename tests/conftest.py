"""Fixtures for every folder of tests."""

from lab.fixtures import broker, image

__all__ = ["broker", "image"]
