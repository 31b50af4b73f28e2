"""What an explainer returns, and how it is kept and shown."""
