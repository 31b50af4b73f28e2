"""Where an installed package keeps its files, found without importing the package."""

from importlib.util import find_spec
from pathlib import Path


def package_folder(module: str, distribution: str) -> Path:
    """The folder of the top-level package `module`, installed by `pip install distribution`.

    Raises:
        ModuleNotFoundError: the package is not installed; the message names the distribution.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {module!r} is needed for its files and is not installed; "
            f"install it with: pip install {distribution}",
            name=module,
        )
    return Path(spec.submodule_search_locations[0])
