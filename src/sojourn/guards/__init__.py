"""Guards: what protects an application from load, from its dependencies and from its own layers."""
