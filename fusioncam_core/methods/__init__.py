"""The methods as pure functions of arrays."""
