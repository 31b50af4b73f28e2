from fusioncam_core.testing import *
