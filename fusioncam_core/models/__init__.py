"""One model, in the words that the core understands."""
