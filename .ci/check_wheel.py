"""Fails unless a wheel holds the packages that pyproject.toml names, typed, and nothing else.

python .ci/check_wheel.py PATH-OF-THE-WHEEL
"""

import sys
import tomllib
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
expected = {PurePosixPath(path).name for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
with ZipFile(sys.argv[1]) as wheel:
    names = set(wheel.namelist())
packages = {top for top in (PurePosixPath(name).parts[0] for name in names) if not top.endswith(".dist-info")}
untyped = {package for package in expected if f"{package}/py.typed" not in names}
written = {path.as_posix() for path in Path("fusioncam_core").rglob("*_template/*")}

if packages != expected:
    sys.exit(f"the wheel holds {sorted(packages)} at its top level; expected {sorted(expected)}")
if untyped:
    sys.exit(f"the wheel has no py.typed for {sorted(untyped)}")
if not written or written - names:
    sys.exit(f"the wheel lacks {sorted(written - names)}, which pages are written from")
