"""The ground: array words, the namespaces they run in, and checks of arguments."""
