"""The tasks of the site, on the application for blocking code."""

from functools import partial

from django.conf import settings
from django.db import transaction

from qtasks.sync import QueueTasks
from shop.models import Order

queue = QueueTasks("shop", settings.QTASKS_URL)


@queue.task(name="shop.mail", retry=3)
def mail(order_id: int) -> str:
    """A plain function: it runs in a thread, where Django's ORM may be used."""
    order = Order.objects.get(pk=order_id)
    order.mailed = True
    order.save()
    return f"mailed {order.item}"


def place_order(item: str) -> Order:
    """Adds the task only when the transaction is committed: a rollback adds none."""
    with transaction.atomic():
        order = Order.objects.create(item=item)
        transaction.on_commit(partial(mail.add_task, order.pk))
        if item == "nothing":
            raise ValueError("an order of nothing")
    return order
