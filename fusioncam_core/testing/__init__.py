"""For authors of backends: the contract that every adapter has to keep, with the arrays that it is held against.

It needs pytest, and is imported by tests alone::

    from fusioncam_core.testing import AdapterContract

    class TestMyFramework(AdapterContract):
        layer = "relu4"
        ...
"""

from fusioncam_core.testing.contract import AdapterContract, BrokenModelError

__all__ = ["AdapterContract", "BrokenModelError"]
