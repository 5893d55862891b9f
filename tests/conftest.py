"""Fixtures for every folder of tests."""

import signal

from lab.fixtures import broker, image, minutes_allowed, node, possible_node, postgres, redis

# What a shell starts in its background ignores SIGINT, and the lab's containers would inherit that; a kubelet's don't.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["broker", "image", "minutes_allowed", "node", "possible_node", "postgres", "redis"]
