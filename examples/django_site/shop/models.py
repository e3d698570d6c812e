"""One model."""

from django.db import models


class Order(models.Model):
    """An order, and whether its mail went out."""

    item = models.CharField(max_length=100)
    mailed = models.BooleanField(default=False)
