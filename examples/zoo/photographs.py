"""Photographs that other packages ship, found without importing those packages."""

from pathlib import Path

from examples.zoo.installed import package_folder


def photograph(name: str) -> Path:
    """A photograph of scikit-image: "coffee", "chelsea" (a cat), "rocket", "motorcycle_left", ...

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
        ValueError: scikit-image ships no such picture.
    """
    folder = package_folder("skimage", "scikit-image") / "data"
    shipped = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")}
    if name not in shipped:
        raise ValueError(f"scikit-image ships no photograph {name!r}; it has: {', '.join(shipped)}")
    return shipped[name]


def foolbox_photographs() -> list[tuple[Path, int]]:
    """The 20 ImageNet photographs of foolbox, each with its class index, in the order of their numbers.

    Raises:
        ModuleNotFoundError: foolbox is not installed.
    """
    folder = package_folder("foolbox", "foolbox") / "data"
    return [(path, int(path.stem.rsplit("_", 1)[1])) for path in sorted(folder.glob("imagenet_*.jpg"))]
