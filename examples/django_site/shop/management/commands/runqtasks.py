"""`python manage.py runqtasks`: runs the worker with the site's settings loaded."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from shop.tasks import queue


class Command(BaseCommand):
    """Runs the qtasks worker."""

    help = "Runs the qtasks worker until SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One option."""
        parser.add_argument("--until-idle", action="store_true", help="return when nothing is left to do")

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs it."""
        queue.run_forever(until_idle=options["until_idle"])
