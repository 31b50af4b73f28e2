from fusioncam_core.errors import *
