"""Where images come from, and what belongs to them."""
