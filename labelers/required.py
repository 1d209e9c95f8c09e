"""Optional packages, refused by name before anything heavy is loaded."""

from importlib.util import find_spec

from fourmill.labelers.base import LabelerSpec
from fourmill.manifests.errors import MissingPackageError


def check_packages(spec: LabelerSpec, hint: str = "") -> None:
    """Refuse a labeler whose packages are not installed.

    Args:
        hint: what has to be done before the extra can be installed.

    Raises:
        MissingPackageError: names the package, and what to run.
    """
    for package, extra in spec.requires.items():
        if find_spec(package) is None:
            raise MissingPackageError(
                f"labeler {spec.name} needs {package}: {hint}pip install 'fourmill[{extra}]'"
            )
