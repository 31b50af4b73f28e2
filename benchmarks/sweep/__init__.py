"""Networks of public packages with random weights, each explained and compared with a Grad-CAM written by hand.

`make sweep` runs everything; `docs/models.md` has the result.

python -m benchmarks.sweep.run --out sweep-out          one row of JSON a model; goes on where it stopped
python -m benchmarks.sweep.report sweep-out docs/models.md
"""
