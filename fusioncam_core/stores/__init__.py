"""What keeps results in folders between runs: what tells one thing from another there, and who may write."""
