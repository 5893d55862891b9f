"""Profiles of hypothesis: the same short run everywhere by default, `--hypothesis-profile deep` to search.

python -m pytest tests/property --hypothesis-profile deep
"""

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
# Derandomized: a change that breaks nothing fails nowhere, and what fails in CI fails on a desk.
settings.register_profile("quick", max_examples=150, derandomize=True, database=None, **_COMMON)
settings.register_profile("deep", max_examples=5000, **_COMMON)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A deep search takes as long as it takes."""
    if settings.get_current_profile_name() == "deep":
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
