"""CompatPlugin: one plugin of QTasks 1.x as a plugin of qtasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from qtasks import NULL, PluginManager, QueueTasks, TaskExecSchema, TaskPrioritySchema, current_task, hookimpl
from qtasks.plugins.compat.table import COMPONENTS, INSIDE, PASSED, RETURNED
from qtasks.plugins.compat.values import (
    BoundBroker,
    BoundExecutor,
    BoundStorage,
    arg_metas,
    from_old,
    text_of,
    to_old,
    value_of,
)

PRODUCER = ("qtasks_add_task_before_broker", "qtasks_add_task_after_broker")
TRIGGERS = PluginManager().triggers
UPDATES = ("broker_update", "storage_update")
RUNS = ("task_executor_run_task", "task_executor_run_task_gen")


class OldPlugin(Protocol):
    """What a plugin of 1.x is; `start`, `stop` and `trigger` may be plain or `async`."""

    def start(self) -> Any: ...
    def stop(self) -> Any: ...
    def trigger(self, name: str) -> Any: ...


class CompatPlugin:
    """Calls a plugin of 1.x with the keyword arguments of 1.x, and takes from it what it returns, or what it changed
    in place, as 1.x did.

    Parameters:
        plugin: an object with `start()`, `stop()` and `trigger(name, **kwargs)`.
        trigger_names: the triggers it is registered for, as in `add_plugin` of 1.x; without them it is a global one:
            it gets all, after those that are registered by name.
        component: for a global plugin: the component it was added to, such as `"broker"`; it gets the triggers of this
            one only.
        name: its name in qtasks; the default is the plugin's own, or the name of its class.

    Raises:
        ValueError: a trigger or the component has no such name.
    """

    def __init__(
        self, plugin: OldPlugin, trigger_names: Iterable[str] | None = None, *, component: str | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if component is not None and component not in COMPONENTS:
            raise ValueError(f"there is no component {component!r}; there are {', '.join(COMPONENTS)}")
        given = () if trigger_names is None else tuple(trigger_names)
        if unknown := sorted(set(given) - PASSED.keys() - INSIDE.keys()):
            raise ValueError(f"neither QTasks 1.x nor qtasks has the trigger {', '.join(unknown)}")
        self.qtasks_name = name or getattr(plugin, "name", None) or type(plugin).__name__
        self.plugin = plugin
        self._app: QueueTasks | None = None
        self._cache: Any = None
        everything = [
            trigger
            for trigger in (*PASSED, *INSIDE)
            if component is None or trigger.startswith(f"{component}_")
        ]
        self._wanted = frozenset(given or everything)
        self._implement(trylast=not given)

    def _implement(self, *, trylast: bool) -> None:
        wanted = {INSIDE.get(trigger, trigger) for trigger in self._wanted}
        # A middleware of 1.x is told of after the run, too.
        if "task_executor_middlewares_execute" in self._wanted:
            wanted.add("task_executor_run_task")
        for name, trigger in TRIGGERS.items():
            # `start` and `stop` of the plugin hang on these two.
            if name in wanted or name in ("starter_start", "starter_stop"):
                function = _with_parameters(trigger.params, self._caller(name, trigger.shape))
                setattr(self, name, hookimpl(specname=name, trylast=trylast)(function))

    def _caller(self, trigger: str, shape: str | None) -> Callable[[dict[str, Any]], Any]:
        async def call(given: dict[str, Any]) -> Any:
            if trigger == "starter_start":
                self._app = given["starter"].app
                await _awaited(self.plugin.start())
            changed = await self._around(trigger, given)
            if trigger == "starter_stop":
                await _awaited(self.plugin.stop())
            if not changed or shape is None:
                return None
            return next(iter(changed.values())) if shape == "value" else changed

        return call

    # --- One trigger of qtasks, and those of 1.x that lie in it ---------------------------------

    async def _around(self, trigger: str, given: dict[str, Any]) -> dict[str, Any]:
        executor = _executor(given)
        if trigger == "task_executor_middlewares_execute":
            if "task_executor_task_close" in self._wanted:
                current_task().resources.push_async_callback(self._close, executor, given)
            before = given["task_func"].middlewares_before
            await self._told(trigger, task_executor=executor, middlewares_before=list(before))
            return {}
        changed = await self._fired(trigger, given) if trigger in self._wanted else {}
        if trigger == "task_executor_args_replace":
            await self._told("task_executor_before_execute", task_executor=executor)
        if trigger in RUNS:
            after = given["task_func"].middlewares_after
            await self._told(
                "task_executor_middlewares_execute", task_executor=executor, middlewares_after=list(after)
            )
            name = "result" if trigger == "task_executor_run_task" else "results"
            changed |= await self._after_execute(name, changed.get(name, given[name]), executor)
        return changed

    async def _told(self, name: str, **kwargs: Any) -> dict[str, Any]:
        if name not in self._wanted:
            return {}
        return await self._trigger(name, kwargs)

    async def _after_execute(self, name: str, result: Any, executor: BoundExecutor | None) -> dict[str, Any]:
        await self._told("task_executor_after_execute", task_executor=executor)
        returned = await self._told(
            "task_executor_after_execute_result_replace",
            task_executor=executor,
            result=None if result is NULL else result,
        )
        return {name: _really(returned["result"])} if "result" in returned else {}

    async def _close(self, executor: BoundExecutor | None, given: Mapping[str, Any]) -> None:
        await self._trigger(
            "task_executor_task_close",
            {"task_executor": executor, "task_func": given["task_func"], "task_broker": given["task_broker"]},
        )

    # --- One call -------------------------------------------------------------------------------

    async def _fired(self, trigger: str, given: dict[str, Any]) -> dict[str, Any]:
        passed: dict[str, Any] = {}
        new_names: dict[str, str] = {}
        for word in PASSED[trigger].split():
            old, _, new = word.partition("=")
            new_names[old] = new or old
            passed[old] = self._passed(trigger, new or old, given)
        returned = await self._trigger(trigger, dict(passed))
        replaceable = TRIGGERS[trigger].replaces
        changed: dict[str, Any] = {}
        for old, value in passed.items():
            # What a plugin changed in place counts as well, as in 1.x, where it holds the value itself.
            name = new_names[old]
            if name in replaceable and old not in returned and self._mutable(trigger, name):
                new = self._taken(trigger, name, value, given, value)
                if new != given[name]:
                    changed[name] = new
        for old, value in returned.items():
            name = RETURNED.get((trigger, old)) or new_names.get(old, old)
            if name in replaceable and (value is not None or name in ("result", "value")):
                changed[name] = self._taken(trigger, name, value, given, passed.get(old))
        if trigger == "storage_add_process" and returned.get("task_data"):
            changed["task_name"] = str(returned["task_data"]).rsplit(":", 2)[0]
        return changed

    def _mutable(self, trigger: str, name: str) -> bool:
        return name in ("args", "kw", "model", "task", "task_broker", "task_status", "results") or (
            trigger == "storage_get" and name == "result"
        )

    def _passed(self, trigger: str, name: str, given: Mapping[str, Any]) -> Any:
        value = given[name]
        match name:
            case "args":
                return value if trigger in PRODUCER else list(value)
            case "kw" if trigger in UPDATES:
                component = given["broker" if trigger == "broker_update" else "storage"]
                return {"name": f"{component.app_name}:{given['uuid']}", "mapping": dict(value)}
            case "kw":
                return dict(value)
            case "args_info":
                return arg_metas(value)
            case "task_executor":
                return _executor(given)
            case "broker" if self._app is not None:
                return BoundBroker(value, self._app)
            case "storage" if self._app is not None:
                return BoundStorage(value, self._app)
            case "result" if trigger == "task_executor_decode":
                return text_of(value)
            case "results":
                return [to_old(each) for each in value]
        return to_old(value)

    def _taken(self, trigger: str, name: str, value: Any, given: Mapping[str, Any], passed: Any) -> Any:
        """A value of 1.x as qtasks takes it."""
        if name == "args":
            return tuple(value)
        if name == "kw" and trigger in UPDATES:
            return dict(value.get("mapping", given[name]))
        if name == "extra":
            return {**given[name], **value}
        if trigger == "storage_get_all":
            known = {task.uuid: task for task in given[name]}
            return [from_old(task, known[task.uuid]) if task.uuid in known else task for task in value]
        if trigger == "task_executor_decode":
            return _really(value_of(value))
        if trigger == "storage_get":
            return from_old(value, given[name])
        if name in ("result", "value"):
            return _really(value)
        return from_old(value, given[name], fresh=value is not passed)

    async def _trigger(self, name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self._cache:
            kwargs["plugin_cache"] = self._cache
        call = cast(Callable[..., Any], self.plugin.trigger)
        returned = await _awaited(call(name, **kwargs))
        if returned is None:
            return {}
        if not isinstance(returned, dict):
            raise TypeError(f"a plugin of QTasks 1.x returns a dict or None from {name!r}, not {returned!r}")
        returned = dict(returned)
        self._cache = returned.pop("plugin_cache", self._cache)
        return returned


def _executor(given: Mapping[str, Any]) -> BoundExecutor | None:
    found = given.get("task_executor")
    task_func: TaskExecSchema | None = given.get("task_func")
    task_broker: TaskPrioritySchema | None = given.get("task_broker")
    return BoundExecutor(found, task_func, task_broker) if found and task_func and task_broker else None


def _really(value: Any) -> Any:
    return NULL if value is None else value


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _with_parameters(names: tuple[str, ...], call: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """A function with these parameters, that a hook can be implemented with; it passes them on as a dict."""
    listed = ", ".join(names)
    passed = ", ".join(f"{name!r}: {name}" for name in names)
    made: Callable[..., Any] = eval(  # noqa: S307 - made of the names of declared parameters alone
        f"lambda {listed}: call({{{passed}}})", {"call": call}
    )
    return made
