"""What figures are drawn on. It needs matplotlib: import it where something is drawn."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Page(Figure):
    """A figure that a notebook shows by itself.

    Notebooks learn to show matplotlib's own figures from `matplotlib.pyplot`, which is not needed here, and would else
    print their size.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
