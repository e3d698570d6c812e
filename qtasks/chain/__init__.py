"""The rules of a trigger: how the implementations of plugins make one chain, and how it runs.

Pure: no I/O, and no knowledge of how plugins are registered. `docs` and DESIGN have the rules with
their numbers, and so have the tests.
"""

from qtasks.chain.compiler import Chain, compile_chain, compile_switch
from qtasks.chain.model import (
    MAX_NESTING,
    NULL,
    Implementation,
    Null,
    Observer,
    OnError,
    PluginCall,
    Shape,
    Trigger,
)
from qtasks.chain.order import Place, arrange
from qtasks.chain.runtime import Host

__all__ = [
    "MAX_NESTING",
    "NULL",
    "Chain",
    "Host",
    "Implementation",
    "Null",
    "Observer",
    "OnError",
    "Place",
    "PluginCall",
    "Shape",
    "Trigger",
    "arrange",
    "compile_chain",
    "compile_switch",
]
