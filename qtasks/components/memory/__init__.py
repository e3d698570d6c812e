"""The memory backend: broker, storage and global config in one process, for tests and small programs."""

from qtasks.components.memory.broker import MemoryBroker
from qtasks.components.memory.global_config import MemoryGlobalConfig
from qtasks.components.memory.space import MemorySpace
from qtasks.components.memory.storage import MemoryStorage

__all__ = ["MemoryBroker", "MemoryGlobalConfig", "MemorySpace", "MemoryStorage"]
