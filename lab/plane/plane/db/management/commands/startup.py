"""Enterprise's startup: calls the command that registers the instance, in its own process."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    """Register an instance of the edition that is named."""

    def add_arguments(self, parser: CommandParser) -> None:
        """As Plane's."""
        parser.add_argument("edition")
        parser.add_argument("--machine-signature")

    def handle(self, *_args: object, **_options: Any) -> None:
        """Let the command's error pass, as Plane's does."""
        call_command("register_instance_ee")
