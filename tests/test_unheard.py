"""What other packages say while they work for us: left out meanwhile, and heard again afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest

from fusioncam_core.models.unheard import unheard


@pytest.mark.parametrize("raises", [False, True])
def test_loggers_and_warnings(raises: bool) -> None:
    names = ("fusioncam.tests.first", "fusioncam.tests.second")
    loggers = [logging.getLogger(name) for name in names]
    other = logging.getLogger("fusioncam.tests.other")

    def heard(logger: logging.Logger) -> bool:
        return bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, "a warning", (), None)))

    assert all(map(heard, loggers))
    with pytest.raises(ZeroDivisionError) if raises else unheard(), unheard(*names):
        assert not any(map(heard, loggers))
        assert heard(other)
        warnings.warn("of its own insides", UserWarning, stacklevel=1)
        if raises:
            raise ZeroDivisionError
    assert all(map(heard, loggers))
    with pytest.warns(UserWarning, match="later"):
        warnings.warn("later", UserWarning, stacklevel=1)
