"""Fixtures for every folder of tests."""

from lab.fixtures import broker, image, postgres, redis

__all__ = ["broker", "image", "postgres", "redis"]
