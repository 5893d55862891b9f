"""Plane's production settings if Plane read the variables that operators asked for, as its enterprise edition began to.

The fault lab's contender "asked": what those settings do on their own.
"""

import os

from .production import *  # noqa: F403

CELERY_TASK_PUBLISH_RETRY = os.environ.get("CELERY_TASK_PUBLISH_RETRY", "1") in ("1", "True", "true")
CELERY_BROKER_POOL_LIMIT = int(os.environ.get("CELERY_BROKER_POOL_LIMIT", "10"))
