"""Fixtures for every folder of tests."""

from tests.lab.fixtures import broker, image

__all__ = ["broker", "image"]
