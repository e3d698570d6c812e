"""The smallest settings that the example needs."""

import os
from pathlib import Path

BASE = Path(os.environ.get("SITE_DATA", Path(__file__).parent))
SECRET_KEY = "only for the example"  # noqa: S105
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE / "site.db"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

QTASKS_URL = f"sqlite:///{BASE / 'queue.db'}"
