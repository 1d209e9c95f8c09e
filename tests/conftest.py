"""How tests are shared out among processes: a file to each, and all that start Ray to one."""

import pytest

_RAY = "ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two Rays at once would wait for each other's processes; fixtures of a file are made once."""
    files = {item.path for item in items if item.get_closest_marker("ray")}
    for item in items:
        group = _RAY if item.path in files else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
