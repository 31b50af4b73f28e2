"""Which map is right? Methods and metrics on real networks; docs/study.md says what came out.

    python -m benchmarks.study PART --photographs FOLDER --out study-out
    python -m benchmarks.study record --out study-out
    python -m benchmarks.study tables

The first measures one part (`parts.PARTS`) and goes on where it was interrupted; the second keeps its values in
`values/`; the third makes the tables and the figure of docs/study.md anew from those, and needs no networks.
"""
