"""`python -m fusioncam_core` is the command `fusioncam`."""

import sys

from fusioncam_core.cli import main

sys.exit(main())
