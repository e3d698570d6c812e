"""Faults of the memory global config, each with the check that must see it."""

from __future__ import annotations

import re

from qtasks.components.memory import MemoryGlobalConfig
from tests.conformance.mutants.table import mutant


@mutant("writes without comparing", "CONFIG-03")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        return await super().put(name, key, value, ttl)


@mutant("keeps values for ever", "CONFIG-05")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        return await super().put(name, key, value, None, if_version)


@mutant("begins versions again", "CONFIG-02")
class _(MemoryGlobalConfig):
    async def delete(self, name, key, if_version=None):
        done = await super().delete(name, key, if_version)
        self._state.config_version = 0
        return done


@mutant("runs name and key together", "CONFIG-07")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        name, _, key = f"{name}:{key}".partition(":")
        return await super().put(name, key, value, ttl, if_version)

    async def fetch(self, name, key):
        name, _, key = f"{name}:{key}".partition(":")
        return await super().fetch(name, key)


@mutant("a backslash escapes in a glob", "CONFIG-08")
class _(MemoryGlobalConfig):
    async def match(self, pattern):
        return await super().match(re.sub(r"\\(.)", r"\1", pattern, flags=re.S))


@mutant("takes an empty key for none", "CONFIG-70")
class _(MemoryGlobalConfig):
    async def fetch_all(self, name):
        return {key: item for key, item in (await super().fetch_all(name)).items() if key}


@mutant("ignores a replaced key", "CONFIG-51")
class _(MemoryGlobalConfig):
    async def set(self, name, key, value, *, ttl=None, if_version=None):
        _, _, value = await self.pm.hook.global_config_set(
            global_config=self, name=name, key=key, value=value
        )
        return await self.put(name, key, value, ttl, if_version)


@mutant("a sign of life that never ends", "CONFIG-55")
class _(MemoryGlobalConfig):
    async def set_status(self, owner, status, ttl):
        await super().set_status(owner, status, 1e9)
