"""Which methods of components fire which trigger: where a component has one of its own, it is always called."""

from __future__ import annotations

from typing import Final

from qtasks.components.base import Component
from qtasks.components.broker import Broker
from qtasks.components.storage import Storage
from qtasks.components.worker import Worker

_FIRED_BY: Final[dict[type[Component], dict[str, tuple[str, ...]]]] = {
    Broker: {
        "add": ("broker_add_before", "storage_add"),
        "added": ("broker_add_after",),
        "add_worker": ("broker_add_worker",),
        "get": ("broker_get",),
        "update": ("broker_update",),
        "remove_finished_task": ("broker_remove_finished_task",),
    },
    Storage: {
        "add": ("storage_add",),
        "add_process": ("storage_add_process",),
        "get": ("storage_get",),
        "update": ("storage_update",),
        "remove_finished_task": ("storage_remove_finished_task",),
    },
    Worker: {"add": ("worker_add",)},
}


def heard_by_components(broker: Broker, storage: Storage, worker: Worker) -> frozenset[str]:
    """The triggers that must not be left out although no plugin implements them: a subclass may do more than to fire
    them, and a broker that does not declare priorities or times refuses such tasks where it fires its own."""
    heard: set[str] = set()
    for component, base in ((broker, Broker), (storage, Storage), (worker, Worker)):
        for method, triggers in _FIRED_BY[base].items():
            if getattr(type(component), method) is not getattr(base, method):
                heard.update(triggers)
    if not (broker.capabilities.priorities and broker.capabilities.delayed):
        heard.add("broker_add_before")
    return frozenset(heard)
