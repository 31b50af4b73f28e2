"""Fails if any of the named packages can be found: `python check_absent.py torch jax`."""

import sys
from importlib.util import find_spec

found = [name for name in sys.argv[1:] if find_spec(name) is not None]
if found:
    sys.exit(f"this environment was meant to have no framework, but it has {', '.join(found)}")
