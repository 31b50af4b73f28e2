"""Makes an environment of a wheel and what it requires, out of the packages of the environment that runs this.

python .ci/link_env.py ENVIRONMENT WHEEL[EXTRA,...] [PACKAGE...]

A package gets in if the wheel's own metadata, with these extras, lead to it: nothing else is found in the new
environment. Files are hard links where the file system has them, so that gigabytes take seconds. The wheel itself is
installed by pip, which then checks that every requirement is met. Packages that are named are added without what they
require.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator
from email.parser import Parser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Wanted = tuple[str, frozenset[str]]


def wheel_metadata(wheel: Path) -> tuple[str, list[str]]:
    """Its name and its requirements."""
    with ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = Parser().parsestr(archive.read(path).decode())
    return canonicalize_name(metadata["Name"]), metadata.get_all("Requires-Dist", [])


def requirements(lines: Iterable[str], extras: frozenset[str]) -> Iterator[Requirement]:
    """Those that hold here, with these extras."""
    for each in map(Requirement, lines):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield each


def installed(requirement: Requirement) -> Distribution:
    """The package that this environment has for it."""
    try:
        return distribution(requirement.name)
    except PackageNotFoundError:
        sys.exit(f"{requirement} is required, and {sys.prefix} does not have it")


def closure(name: str, lines: list[str], extras: frozenset[str]) -> dict[str, Distribution]:
    """All that a wheel of this name needs, by name; its own extras may refer to it."""
    found: dict[str, Distribution] = {}
    seen: set[Wanted] = set()
    waiting: list[Wanted] = [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        if (package, wanted) in seen:
            continue
        seen.add((package, wanted))
        own = lines if package == name else found[package].requires or []
        for requirement in requirements(own, wanted):
            needed = canonicalize_name(requirement.name)
            if needed != name:
                found[needed] = installed(requirement)
            waiting.append((needed, frozenset(requirement.extras)))
    return found


def link(package: Distribution, site_packages: Path) -> None:
    """A package's files, but for its scripts, which name another interpreter; with what was compiled of them since."""
    for file in package.files or ():
        if file.parts[0] == "..":
            continue
        source, target = Path(str(package.locate_file(file))), site_packages / file
        link_file(source, target)
        if file.suffix == ".py":
            link_file(Path(cache_from_source(str(source))), Path(cache_from_source(str(target))))


def link_file(source: Path, target: Path) -> None:
    """One of them, if it exists and is not there already."""
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def main(environment: str, wheel: str, *others: str) -> None:
    """Make the environment."""
    path, _, extras = wheel.removesuffix("]").partition("[")
    venv.create(environment, symlinks=True)
    site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": environment}))
    name, lines = wheel_metadata(Path(path))
    for package in closure(name, lines, frozenset(extras.split(",")) if extras else frozenset()).values():
        link(package, site_packages)
    pip = [sys.executable, "-m", "pip", "--python", f"{environment}/bin/python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", path], check=True)
    subprocess.run([*pip, "check"], check=True)
    for other in others:
        link(distribution(other), site_packages)


if __name__ == "__main__":
    main(*sys.argv[1:])
