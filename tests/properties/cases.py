"""Random chains as plain data: what the plugins are, what each does, on which trigger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

Kind = Literal["def", "async", "pause", "lazy", "lazy-pause"]


class Nul:
    """Stands for `qtasks.NULL` in a case."""

    def __repr__(self) -> str:
        return "NUL"


NUL = Nul()


@dataclass(frozen=True)
class Act:
    """What an implementation does: returns a value, or raises the named exception."""

    value: Any = None
    error: str = ""


@dataclass(frozen=True)
class Around:
    """What a wrapper does: at its start, after a chain that went well, after one that failed."""

    start: str = ""
    good: Act = Act()
    bad: Act | None = None
    """`None` lets the failure pass."""
    everything: bool = False
    """Whether it catches BaseException, which it may not keep."""


@dataclass(frozen=True)
class Impl:
    """One plugin, with one implementation."""

    name: str
    act: Act = Act()
    kind: Kind = "def"
    group: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    on_error: str | None = None
    around: Around | None = None


@dataclass(frozen=True)
class Model:
    """A trigger, as the oracle knows it."""

    name: str
    given: dict[str, Any]
    replaces: dict[str, str] = field(default_factory=dict)
    shape: str | None = None
    control: bool = False
    defers: bool = False
    goes_on: bool = False


FIELDS = {"a": "int", "b": "str?", "c": "ints"}

MODELS = {
    model.name: model
    for model in (
        Model("note", {"first": 1, "second": "two"}),
        Model("note_stop", {"first": 1}, goes_on=True),
        Model("one", {"number": 0, "text": "t"}, {"number": "int"}, "value"),
        Model("maybe", {"text": "t"}, {"text": "str?"}, "value"),
        Model(
            "many",
            {"first": 1, "number": 0, "text": "t", "items": [1]},
            {"number": "int", "text": "str?", "items": "ints"},
            "mapping",
        ),
        Model("solo", {"number": 0}, {"number": "int"}, "mapping"),
        Model("two", {"args": (1,), "kw": {"x": 1}}, {"args": "args", "kw": "kw"}, "pair"),
        Model("fields", {"kw": {"a": 1, "locked": 5}}, {"kw": "fields"}, "kwargs"),
        Model(
            "steer",
            {"number": 0, "text": "t"},
            {"number": "int", "text": "str?"},
            "mapping",
            control=True,
        ),
        Model("produce", {"number": 0}, {"number": "int"}, "value", control=True, defers=True),
    )
}

SIGNALS = ("note", "note_stop")
REPLACING = tuple(name for name in MODELS if name not in SIGNALS)
MANY_KEYS = ("many", "steer", "two", "solo")


@dataclass(frozen=True)
class Case:
    """Plugins registered, fired; more registered, fired; some unregistered, fired."""

    trigger: str
    plugins: tuple[Impl, ...]
    added: tuple[Impl, ...] = ()
    removed: tuple[str, ...] = ()


GOOD: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(1, 99),
    "str?": st.sampled_from(["p", "q", "r"]),
    "ints": st.lists(st.integers(0, 9), max_size=3),
    "args": st.tuples(st.integers(0, 9)) | st.lists(st.integers(0, 9), max_size=2),
    "kw": st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=2),
}
GOOD["fields"] = st.fixed_dictionaries({}, optional={key: GOOD[kind] for key, kind in FIELDS.items()})
BAD: dict[str, st.SearchStrategy[Any]] = {
    "int": st.sampled_from(["z", [], {}]),
    "str?": st.sampled_from([7, [], {}]),
    "ints": st.sampled_from(["z", 7, ["z"]]),
    "args": st.sampled_from([7, "z"]),
    "kw": st.sampled_from([7, [1]]),
    "fields": st.sampled_from([7, "z"]),
}


def good_returns(model: Model, none: bool = True, nul: bool = False) -> st.SearchStrategy[Any]:
    """Returns that fit the trigger. `none`: with `None` inside. `nul`: with NULL where it may be."""

    def inside(kind: str) -> st.SearchStrategy[Any]:
        found = GOOD[kind]
        if none:
            found = found | st.none()
        if nul and kind.endswith("?"):
            found = found | st.just(NUL)
        return found

    if model.shape is None:
        return st.sampled_from([1, "x", {"first": 2}, [3], ()])
    if model.shape == "value":
        (kind,) = model.replaces.values()
        return GOOD[kind] | st.just(NUL) if nul and kind.endswith("?") else GOOD[kind]
    if model.shape == "kwargs":
        some = st.fixed_dictionaries({}, optional={key: inside(kind) for key, kind in FIELDS.items()})
        return some | some.map(lambda kw: {"kw": kw}) | some.map(lambda kw: {**kw, "locked": 5})
    some = st.fixed_dictionaries({}, optional={key: inside(kind) for key, kind in model.replaces.items()})
    if model.shape == "pair":
        return some | st.tuples(*map(inside, model.replaces.values()))
    return some


def wrong_returns(model: Model) -> st.SearchStrategy[Any]:
    """Returns that do not fit the trigger: rule 8 refuses them."""
    if model.shape == "value":
        (kind,) = model.replaces.values()
        return BAD[kind] if kind.endswith("?") else BAD[kind] | st.just(NUL)
    if model.shape == "kwargs":
        pairs = [st.fixed_dictionaries({key: BAD[kind]}) for key, kind in FIELDS.items()]
        strange = st.sampled_from(
            [
                {"bogus": 1},
                {"bogus": None},
                {"a": NUL},
                {"locked": 6},
                {"kw": {"locked": 6}},
                {"kw": {"bogus": 1}},
                {1: 1},
            ]
        )
        return st.one_of(*pairs, strange, BAD["fields"], st.just({"kw": 7}), st.just({"kw": {}, "a": 1}))
    keyed = [st.fixed_dictionaries({key: BAD[kind]}) for key, kind in model.replaces.items()]
    nulled = [st.just({key: NUL}) for key, kind in model.replaces.items() if not kind.endswith("?")]
    unknown = (
        good_returns(model).filter(lambda got: isinstance(got, dict)).map(lambda got: {**got, "bogus": 1})
    )
    shapes: st.SearchStrategy[Any] = st.sampled_from([7, "z", [], [1, {}], (1,), ((), {}, 1)])
    return st.one_of(*keyed, *nulled, unknown, shapes, shapes, shapes)


ERRORS = ("ValueError", "PluginError", "StopIteration")
CONTROL = ("TaskCancelError", "TaskDefer", "TaskDefer9", "TaskRejected")


@st.composite
def acts(draw: st.DrawFn, model: Model, what: frozenset[str]) -> Act:
    """One act out of: good, nul, wrong, error, control, bail (and returning nothing, always)."""
    options: list[st.SearchStrategy[Act]] = [st.just(Act())]
    if "good" in what:
        options += [good_returns(model, nul="nul" in what).map(Act)] * 3
    if "wrong" in what and model.shape is not None:
        options.append(wrong_returns(model).map(Act))
    if "error" in what:
        options.append(st.sampled_from([Act(error=error) for error in ERRORS]))
    if "control" in what:
        options.append(st.sampled_from([Act(error=error) for error in CONTROL]))
    if "bail" in what:
        options.append(st.just(Act(error="Bail")))
    return draw(st.one_of(options))


@st.composite
def cases(
    draw: st.DrawFn,
    triggers: tuple[str, ...] = tuple(MODELS),
    what: str = "good",
    most: int = 5,
    order: bool = False,
    wrappers: bool = False,
    on_error: bool = False,
    changing: bool = False,
    least: int = 1,
) -> Case:
    """A case; the flags say which variety it may have."""
    model = MODELS[draw(st.sampled_from(triggers))]
    kinds = frozenset(what.split())
    count = draw(st.integers(least, most))
    names = [f"p{i}" for i in range(count)]
    some_names = st.lists(st.sampled_from([*names, "absent"]), max_size=2, unique=True).map(tuple)
    impls = []
    for name in names:
        place: dict[str, Any] = {}
        if order:
            place = {
                "group": draw(st.sampled_from(["", "", "tryfirst", "trylast"])),
                "before": draw(st.just(()) | some_names),
                "after": draw(st.just(()) | some_names),
            }
        if wrappers and draw(st.booleans()):
            start = draw(st.just(Act()) | acts(model, kinds - {"good", "wrong"})).error
            bad = draw(st.none() | acts(model, kinds))
            place["around"] = Around(start, draw(acts(model, kinds)), bad, draw(st.booleans()))
        impls.append(
            Impl(
                name,
                act=draw(acts(model, kinds)),
                kind=draw(st.sampled_from(["def", "async", "pause", "lazy", "lazy-pause"])),
                on_error=draw(st.sampled_from([None, "raise", "isolate"])) if on_error else None,
                **place,
            )
        )
    cut = draw(st.integers(0, count)) if changing else count
    removed = tuple(draw(st.lists(st.sampled_from(names), unique=True))) if changing and names else ()
    return Case(model.name, tuple(impls[:cut]), tuple(impls[cut:]), removed)
