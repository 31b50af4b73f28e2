"""English names of the 1000 ImageNet classes."""

from pathlib import Path


def class_names() -> list[str]:
    """The names in index order: `class_names()[967] == "espresso"`. No two are the same."""
    return Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
