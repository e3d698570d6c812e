"""The main job, `qtasks demo`: real tasks over the files of a folder, with three small plugins at work.

`qtasks -A qtasks.demo:app …` steers the same queue from the folder in which the demo was run.
"""

from qtasks.demo.tasks import app

__all__ = ["app"]
