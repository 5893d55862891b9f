"""Enterprise's register_instance: publishes the same task."""

from plane.db.management.commands.register_instance import Command as Community


class Command(Community):
    """Say that this instance is there."""
