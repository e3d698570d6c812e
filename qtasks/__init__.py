"""qtasks: a task queue in which every step of a task's life is a declared pluggy hook."""

__version__ = "0.1.0"
