"""qtasks: a task queue in which every step of a task's life is a declared pluggy hook."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers know the name; typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from qtasks._public import *  # noqa: F403
    from qtasks._public import __all__ as __all__
else:
    # Loaded late, so that the command line can look after SIGINT before this takes its time.
    def __getattr__(name):
        """Loads the public API."""
        from importlib import import_module

        public = import_module("qtasks._public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module 'qtasks' has no attribute {name!r}")
        value = globals()[name] = getattr(public, name)
        return value

    def __dir__():
        """The public API, and what is loaded."""
        from importlib import import_module

        return sorted({*globals(), *import_module("qtasks._public").__all__})
