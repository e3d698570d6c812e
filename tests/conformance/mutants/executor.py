"""Faults of the task executor, each with the check that must see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from qtasks.components.task_executor import TaskExecutor
from qtasks.errors import PluginError
from tests.conformance.mutants.table import component_mutant as mutant


@mutant("replaces arguments before the middlewares are told", "EXECUTOR-01")
class _(TaskExecutor):
    async def prepare(self, task_func, task_broker):
        args, kw = await self.pm.hook.task_executor_args_replace(
            task_executor=self, task_func=task_func, task_broker=task_broker, args=task_broker.args,
            kw=task_broker.kwargs, args_info=task_func.args_info,
        )  # fmt: skip
        await self.pm.hook.task_executor_middlewares_execute(
            task_executor=self, task_func=task_func, task_broker=task_broker, middlewares=()
        )
        return args, kw


@mutant("calls the function with the task's own arguments", "EXECUTOR-04")
class _(TaskExecutor):
    async def execute(self, task_func, task_broker, context, args, kw):
        return await super().execute(task_func, task_broker, context, task_broker.args, task_broker.kwargs)


@mutant("takes a generator for a function", "EXECUTOR-03")
class _(TaskExecutor):
    async def finish(self, task_func, task_broker, result):
        return await super().finish(replace(task_func, kind="function"), task_broker, result)


@mutant("takes a false result for none", "EXECUTOR-05")
class _(TaskExecutor):
    async def trigger_error(self, task_func, task_broker, error):
        result = await super().trigger_error(task_func, task_broker, error)
        if not result:
            raise error
        return result


@mutant("passes a failing plugin over", "EXECUTOR-06")
class _(TaskExecutor):
    async def finish(self, task_func, task_broker, result):
        try:
            return await super().finish(task_func, task_broker, result)
        except PluginError:
            return result


@mutant("decodes after the plugins", "EXECUTOR-07")
class _(TaskExecutor):
    async def finish(self, task_func, task_broker, result):
        result = await super().finish(replace(task_func, decode=None), task_broker, result)
        return result if task_func.decode is None else task_func.decode(result)


@mutant("gives a stream to the plugins again", "EXECUTOR-08")
class _(TaskExecutor):
    async def finish(self, task_func, task_broker, result):
        return await super().finish(replace(task_func, stream=False), task_broker, result)


@mutant("runs plain functions on the loop", "EXECUTOR-20")
class _(TaskExecutor):
    async def in_thread(self, function):
        return function()


@mutant("awaits no result", "EXECUTOR-21")
class _(TaskExecutor):
    async def in_thread(self, function):
        result = await asyncio.get_running_loop().run_in_executor(None, function)
        if asyncio.iscoroutine(result):
            result.close()
        return result


@mutant("a thread without its context", "EXECUTOR-22")
class _(TaskExecutor):
    async def in_thread(self, function):
        return await asyncio.get_running_loop().run_in_executor(None, function)


@mutant("middlewares in reverse", "EXECUTOR-23")
class _(TaskExecutor):
    async def execute(self, task_func, task_broker, context, args, kw):
        turned = replace(task_func, middlewares_before=task_func.middlewares_before[::-1])
        return await super().execute(turned, task_broker, context, args, kw)


@mutant("wraps errors", "EXECUTOR-24")
class _(TaskExecutor):
    async def run(self, task_func, context, args, kw):
        try:
            return await super().run(task_func, context, args, kw)
        except ValueError as error:
            raise RuntimeError("the task failed") from error


@mutant("shields the code from being stopped", "EXECUTOR-25")
class _(TaskExecutor):
    async def run(self, task_func, context, args, kw):
        return await asyncio.shield(super().run(task_func, context, args, kw))


@mutant("forgets a thread that runs on", "EXECUTOR-26")
class _(TaskExecutor):
    async def in_thread(self, function):
        return await asyncio.get_running_loop().run_in_executor(None, partial(function))


@mutant("closes for good", "EXECUTOR-40")
class _(TaskExecutor):
    closed = False

    def close(self):
        self.closed = True

    async def in_thread(self, function):
        if self.closed:
            raise ValueError("closed")
        return await super().in_thread(function)
