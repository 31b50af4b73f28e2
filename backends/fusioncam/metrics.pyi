from fusioncam_core.metrics import *
