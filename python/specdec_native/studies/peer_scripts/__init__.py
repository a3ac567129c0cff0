"""What runs in the interpreter of another engine: needs nothing of this package."""
