"""The conformance kit: what components and plugins must hold, as test suites to subclass.

It needs pytest and pytest-asyncio (`pip install qtasks[test]`); qtasks itself does not import it.
"""

import pytest

_CHECKS = (
    "lifecycle", "broker", "storage", "global_config", "pairing", "plugin", "worker", "task_executor", "starter",
    "stats", "app", "stage",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"qtasks.testing.{name}" for name in _CHECKS))

from qtasks.inmemory import VirtualClock  # noqa: E402
from qtasks.recorder import Fired, Recorder, recorder  # noqa: E402
from qtasks.testing.app import ApplicationSuite  # noqa: E402
from qtasks.testing.bench import Bench, KitFailure  # noqa: E402
from qtasks.testing.broker import BrokerSuite  # noqa: E402
from qtasks.testing.checks import KIT_VERSION, Check, Suite, check, run_check  # noqa: E402
from qtasks.testing.global_config import GlobalConfigSuite  # noqa: E402
from qtasks.testing.pairing import PairingSuite  # noqa: E402
from qtasks.testing.plugin import OrderMatters, PluginSuite, check_plugin, order_matters, plugin_report  # noqa: E402
from qtasks.testing.report import Report, Result, Verdict, run_suite  # noqa: E402
from qtasks.testing.starter import StarterSuite  # noqa: E402
from qtasks.testing.stats import StatsSuite  # noqa: E402
from qtasks.testing.storage import StorageSuite  # noqa: E402
from qtasks.testing.task_executor import TaskExecutorSuite  # noqa: E402
from qtasks.testing.values import arguments, extras, json_values, keyword_arguments, trigger_values  # noqa: E402
from qtasks.testing.worker import WorkerSuite  # noqa: E402

__all__ = [
    "KIT_VERSION",
    "ApplicationSuite",
    "Bench",
    "BrokerSuite",
    "Check",
    "Fired",
    "GlobalConfigSuite",
    "KitFailure",
    "OrderMatters",
    "PairingSuite",
    "PluginSuite",
    "Recorder",
    "Report",
    "Result",
    "StarterSuite",
    "StatsSuite",
    "StorageSuite",
    "Suite",
    "TaskExecutorSuite",
    "Verdict",
    "VirtualClock",
    "WorkerSuite",
    "arguments",
    "check",
    "check_plugin",
    "extras",
    "json_values",
    "keyword_arguments",
    "order_matters",
    "plugin_report",
    "recorder",
    "run_check",
    "run_suite",
    "trigger_values",
]
