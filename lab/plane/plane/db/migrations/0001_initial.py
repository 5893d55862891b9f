"""The one table."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes `exporters`."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="ExporterHistory",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("token", models.CharField(max_length=255, unique=True)),
                ("status", models.CharField(default="queued", max_length=50)),
            ],
            options={"db_table": "exporters"},
        ),
    ]
