"""Which plugins do not commute: found, with the smallest example, and with whether they say it themselves."""

from __future__ import annotations

import base64
import dataclasses
import os
import zlib
from typing import Any

import pytest

from qtasks import TaskRejected, hookimpl
from qtasks.plugins.retry import RetryPlugin
from qtasks.plugins.validation import ValidationPlugin
from qtasks.testing import OrderMatters, order_matters


class Upper:
    @hookimpl
    def task_executor_run_task(self, result):
        return result.upper() if isinstance(result, str) else None


class Signs:
    @hookimpl
    def task_executor_run_task(self, result):
        return f"{result} (signed)" if isinstance(result, str) else None


class SignsLast(Signs):
    qtasks_after = ("upper",)


class Seals:
    """As an encryption would: another value each time."""

    @hookimpl
    def broker_add_before(self, model):
        sealed = os.urandom(8).hex() + repr(model.args)
        return dataclasses.replace(model, args=({"sealed": sealed},))


class Packs:
    @hookimpl
    def broker_add_before(self, model):
        packed = base64.b64encode(zlib.compress(repr(model.args).encode())).decode()
        return dataclasses.replace(model, args=({"packed": packed},))


class SealsAsText:
    @hookimpl
    def broker_add_before(self, model):
        return dataclasses.replace(model, args=(f"sealed:{os.urandom(8).hex()}",))


class PacksAsText:
    @hookimpl
    def broker_add_before(self, model):
        return dataclasses.replace(model, args=(f"packed:{zlib.compress(repr(model.args).encode()).hex()}",))


class Stamps:
    def __init__(self, key: str) -> None:
        self.key = key

    @hookimpl
    def qtasks_add_task_before_broker(self, extra):
        return {"extra": {**extra, self.key: os.urandom(4).hex()}}


class NoStamp:
    @hookimpl
    def qtasks_add_task_before_broker(self, extra):
        if "a" in extra:
            raise TaskRejected("no stamp, please")


class Around:
    @hookimpl(wrapper=True)
    def task_executor_run_task(self, result):
        done = yield
        return f"<{done}>"


def found(**plugins: Any) -> list[OrderMatters]:
    return order_matters(plugins)


def test_a_pair_that_does_not_commute_comes_with_the_smallest_example():
    (pair,) = found(upper=Upper, signs=Signs)
    assert (pair.trigger, pair.first, pair.second, pair.declared) == (
        "task_executor_run_task", "upper", "signs", False,
    )  # fmt: skip
    assert "result=''" in pair.example
    assert (pair.as_is, pair.turned) == ("result=' (signed)'", "result=' (SIGNED)'")


def test_plugins_may_say_it_themselves():
    (pair,) = found(signs=SignsLast, upper=Upper)
    assert (pair.first, pair.second, pair.declared) == ("upper", "signs", True)


def test_what_is_another_value_each_time_counts_by_its_form():
    (pair,) = found(seals=Seals, packs=Packs)
    assert "'packed'" in pair.as_is
    assert "'sealed'" in pair.turned
    assert found(a=lambda: Stamps("a"), b=lambda: Stamps("b")) == []


def test_what_is_another_text_each_time_counts_by_its_beginning():
    (pair,) = found(packs=PacksAsText, seals=SealsAsText)
    assert "packed:" in pair.turned
    assert "sealed:" in pair.as_is


def test_a_veto_that_depends_on_the_order():
    (pair,) = found(no_stamp=NoStamp, a=lambda: Stamps("a"))
    assert pair.turned == "TaskRejected: no stamp, please"
    assert "'a': " in pair.as_is


def test_a_wrapper_runs_around_the_chain_wherever_it_was_registered():
    assert found(around=Around, upper=Upper) == []


def test_the_default_plugins_commute():
    assert found(validation=ValidationPlugin, retry=RetryPlugin()) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_plugins_are_no_pair(count):
    assert order_matters({"upper": Upper()} if count else {}) == []
