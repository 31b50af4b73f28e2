"""What fusioncam costs and how good it is, measured: `make bench` runs everything, `docs/benchmarks.md` has the result.

python -m benchmarks.run            times of all frameworks, peers, memory, start: bench-out/*.json
python -m benchmarks.budgets        how near Score-CAM within a budget comes to the exact one
python -m benchmarks.report         the tables in docs/benchmarks.md
"""
