"""Worker: claims tasks, runs them in slots, settles them, and restores what others left."""

from qtasks.components.worker.worker import Worker

__all__ = ["Worker"]
