"""Prints the oldest version of everything that pyproject.toml asks for, as constraints for pip."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
lowest = {match[1]: match[2] for line in lines if (match := re.match(r"([\w-]+)>=([\d.]+)", line))}
sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(lowest.items()))
