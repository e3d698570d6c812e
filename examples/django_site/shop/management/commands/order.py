"""`python manage.py order ITEM`: places an order, as a view would."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from shop.tasks import place_order, queue


class Command(BaseCommand):
    """Places an order."""

    help = "Places an order; its mail is sent by the worker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What is ordered."""
        parser.add_argument("item")

    def handle(self, *args: Any, **options: Any) -> None:
        """Places it."""
        try:
            self.stdout.write(f"order {place_order(options['item']).pk}")
        except ValueError as error:
            raise CommandError(str(error)) from error
        finally:
            queue.close()
