# What type checkers and editors read: at run time this is the module fusioncam_core itself.
from fusioncam_core import *
from fusioncam_core import __version__ as __version__
from fusioncam_core import metrics as metrics
