"""The eight components and their backends."""
