"""Logging of the command line: structlog and the standard library's, on the screen.

Only the command line sets this up; the library never does. Ids of the run and the node stand in
every line, because the engine binds them as context variables.
"""

from __future__ import annotations

import logging
from typing import Any

from agentflow.cli.screen import Screen


def set_up(options: Any, screen: Screen) -> None:
    """Send what is logged to the screen, from the level of the options on."""
    import structlog

    level = logging.DEBUG if options.debug else getattr(logging, options.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]
    show = structlog.dev.ConsoleRenderer(colors=screen.coloured)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, show],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=screen),  # type: ignore[arg-type]  # a text stream
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(screen)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, show],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
