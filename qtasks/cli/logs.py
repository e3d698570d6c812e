"""Logging of the command line: standard logging, one line per record, control characters escaped."""

from __future__ import annotations

import logging

from qtasks.cli.exits import clean


class LineFormatter(logging.Formatter):
    """A record is one line, whatever a task or a plugin put into it; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, escaped."""
        return clean(super().formatMessage(record)).replace("\n", "\\n")

    def formatException(self, info: object) -> str:  # noqa: N802 - logging's name
        """The traceback, escaped but for its line ends."""
        return clean(super().formatException(info))  # type: ignore[arg-type]


def set_up(level: str) -> None:
    """Logs to stderr from this level on, unless the application has set logging up itself."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    logging.getLogger("qtasks").setLevel(level.upper())
