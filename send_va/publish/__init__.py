"""What leaves the street: figures, the manifest of a run and, later, published files."""
