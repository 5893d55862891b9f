"""Plane's ExporterHistory: the row that stays `queued` for ever when its task is lost."""

from django.db import models


class ExporterHistory(models.Model):
    """One export that a user asked for."""

    token = models.CharField(max_length=255, unique=True)
    status = models.CharField(max_length=50, default="queued")

    class Meta:
        """Plane names its tables itself."""

        db_table = "exporters"

    def __str__(self) -> str:
        """Return it as a log line would."""
        return f"{self.token} {self.status}"
