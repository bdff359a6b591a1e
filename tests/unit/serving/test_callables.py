"""Which callables can serve. Those that would fail every call are refused at set-up, with what to do."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controller.serving.config import ServingSettings
from controller.serving.loading import InferenceFunction, SetupError, load


def described(function: Any) -> Any:
    function.__doc__ = """Echo.

    :param inputs.text: a text
    :type inputs.text: str
    :param outputs.text: the same
    :type outputs.text: str
    """
    return function


def transparent(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def by_position(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def one_argument(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(request: Any) -> Any:
        return function(request)

    return wrapper


@described
def plain(inputs: Any) -> Any:
    return {"text": inputs}


@described
async def coroutine(inputs: Any) -> Any:
    return {"text": inputs}


@described
def generator(inputs: Any) -> Iterator[Any]:
    yield inputs


@described
async def async_generator(inputs: Any) -> AsyncIterator[Any]:
    yield inputs


def rows(inputs: Any) -> Iterator[Any]:
    yield from inputs


@described
def gives_rows(inputs: Any) -> Any:
    return rows(inputs)


@described
def gives_rows_by_a_variable(inputs: Any) -> Any:
    began = time.monotonic()
    try:
        result = rows(inputs)
    finally:
        print("took", time.monotonic() - began, str(began))
    return result


@described
def gives_rows_in_all_cases(inputs: Any) -> Any:
    if inputs:
        return rows(inputs)
    return rows([]) if inputs is None else (item for item in inputs)


@described
async def gives_rows_when_awaited(inputs: Any) -> Any:
    return gives_rows(inputs)


@described
def gives_rows_in_some_cases(inputs: Any) -> Any:
    if not inputs:
        return {"text": ""}
    return rows(inputs)


@described
def takes_rows(inputs: Any) -> Any:
    return {"text": "".join(rows(inputs))}


@described
def returns_what_was_a_generator(inputs: Any) -> Any:
    found = rows(inputs)
    if inputs:
        found = {"text": next(found)}  # type: ignore[assignment]
    return found


def collecting(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        return {"text": "".join(function(**given))}

    return wrapper


def looping(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        found = function(**given)
        text = ""
        for item in found:
            text += item
        return {"text": text}

    return wrapper


def timing(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        result = function(**given)
        print(str(time.monotonic()))
        return result

    return wrapper


def silent(function: Any) -> Any:
    """A decorator that does not say what it wraps."""

    def wrapper(inputs: Any) -> Any:
        return function(inputs=inputs)

    return wrapper


class Handing:
    @described
    def __call__(self, inputs: Any) -> Any:
        return rows(inputs)


class Service:
    """Hands its calls on in the ways of objects."""

    def __init__(self, later: Any = None) -> None:
        self.later = later
        self.table = {"a": rows, "b": generator}
        self.mixed = {"a": rows, "b": plain}

    def rows(self, inputs: Any) -> Iterator[Any]:
        yield inputs

    def answer(self, inputs: Any) -> Any:
        return {"text": list(self.rows(inputs))}

    @staticmethod
    def of_nobody(inputs: Any) -> Iterator[Any]:
        yield inputs

    @classmethod
    def of_all(cls, inputs: Any) -> Iterator[Any]:
        yield inputs

    @property
    def made(self) -> Any:
        return self.rows


SERVICE = Service()
HERE = sys.modules[__name__]
PREPARED = functools.partial(rows, [1])


class Ways:
    """One method each, of which every call gives a generator, or something like one."""

    def __init__(self) -> None:
        self.service = Service()

    def rows(self, inputs: Any) -> Iterator[Any]:
        yield inputs

    own_method = described(lambda self, inputs: self.rows(inputs))
    method_of_a_part = described(lambda self, inputs: self.service.rows(inputs))
    static_method = described(lambda self, inputs: self.service.of_nobody(inputs))
    class_method = described(lambda self, inputs: self.service.of_all(inputs))
    method_of_the_module = described(lambda self, inputs: SERVICE.rows(inputs))
    function_of_a_module = described(lambda self, inputs: HERE.rows(inputs))
    method_of_a_new_one = described(lambda self, inputs: Service().rows(inputs))
    named_method = described(lambda self, inputs: getattr(self, "rows")(inputs))  # noqa: B009
    entry = described(lambda self, inputs: self.service.table["a"](inputs))
    any_entry = described(lambda self, inputs: self.service.table[inputs[0]](inputs))
    entry_if_it_is_there = described(lambda self, inputs: self.service.table.get(inputs[0])(inputs))
    one_of_two = described(lambda self, inputs: (rows if inputs else self.rows)(inputs))
    prepared = described(lambda self, inputs: PREPARED())
    lazy = described(lambda self, inputs: map(str, inputs))
    lazy_over_rows = described(lambda self, inputs: map(str, rows(inputs)))

    @described
    def alias(self, inputs: Any) -> Any:
        chosen = self.service.rows
        return chosen(inputs)

    @described
    def made_on_the_way(self, inputs: Any) -> Any:
        prepared = functools.partial(rows, inputs)
        return prepared()

    @described
    def inner(self, inputs: Any) -> Any:
        def each() -> Iterator[Any]:
            yield inputs

        return each()

    @described
    def inner_that_hands_on(self, inputs: Any) -> Any:
        def each() -> Any:
            return rows(inputs)

        return each()

    @described
    def in_a_block(self, inputs: Any) -> Any:
        with memoryview(b""):
            return self.rows(inputs)


class GoodWays:
    """Those that may give something else, or of which nothing is known."""

    def __init__(self) -> None:
        self.service = Service(later=None)

    own_method = described(lambda self, inputs: self.service.answer(inputs))
    entry = described(lambda self, inputs: self.service.mixed["b"](inputs))
    any_entry = described(lambda self, inputs: self.service.mixed[inputs[0]](inputs))
    one_of_two = described(lambda self, inputs: (rows if inputs else plain)(inputs))
    not_there_yet = described(lambda self, inputs: self.service.later.predict(inputs))
    property_of_a_part = described(lambda self, inputs: self.service.made(inputs))
    missing = described(lambda self, inputs: self.nothing.at_all(inputs))
    argument_of_the_same_name = described(lambda self, inputs, rows=plain: rows(inputs))

    @described
    def loop_variable_of_the_same_name(self, inputs: Any) -> Any:
        for rows in (plain,):
            print(rows)
        return rows(inputs)

    @described
    def inner(self, inputs: Any) -> Any:
        def each() -> Iterator[Any]:
            yield inputs

        return {"text": list(each())}

    @described
    def inner_of_two(self, inputs: Any) -> Any:
        def each() -> Any:
            yield inputs

        if inputs:

            def each() -> Any:
                return {"text": inputs}

        return each()


def ways(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name, way in vars(type(of)).items() if getattr(way, "__doc__", None)}


@described
def with_a_threshold(inputs: Any, threshold: float) -> Any:
    return {"text": [inputs, threshold]}


class Model:
    """A model that can be called in every way."""

    @described
    def __call__(self, inputs: Any) -> Any:
        return {"text": inputs}

    @described
    def method(self, inputs: Any) -> Any:
        return {"text": inputs}

    @described
    async def async_method(self, inputs: Any) -> Any:
        return {"text": inputs}

    @classmethod
    def of_class(cls, inputs: Any) -> Any:
        return {"text": inputs}

    @staticmethod
    def static(inputs: Any) -> Any:
        return {"text": inputs}

    @described
    def generating(self, inputs: Any) -> Iterator[Any]:
        yield inputs

    @functools.lru_cache  # noqa: B019
    def cached(self, inputs: Any) -> Any:
        return {"text": inputs}


described(Model.__dict__["of_class"].__func__)
described(Model.__dict__["static"].__func__)
described(Model.__dict__["cached"].__wrapped__)


class Generating:
    @described
    def __call__(self, inputs: Any) -> Iterator[Any]:
        yield inputs


@described
class DescribedByItsClass:
    def __call__(self, inputs: Any) -> Any:
        return {"text": inputs}


@described
class Result(dict[str, Any]):
    def __init__(self, inputs: Any) -> None:
        super().__init__(text=inputs)


@described
class Eventual:
    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs

    def __await__(self) -> Generator[Any, None, Any]:
        return coroutine(self.inputs).__await__()  # type: ignore[no-any-return]


@transparent
async def async_around(inputs: Any) -> Any:
    return coroutine(inputs)


GOOD: dict[str, Any] = {
    "function": plain,
    "coroutine function": coroutine,
    "decorated": transparent(plain),
    "decorated twice": transparent(transparent(plain)),
    "decorated coroutine function": transparent(coroutine),
    "coroutine function decorated by one": described(async_around),
    "partial": functools.partial(with_a_threshold, threshold=0.5),
    "partial of a coroutine function": functools.partial(coroutine),
    "partial of a decorated partial": functools.partial(transparent(functools.partial(plain))),
    "instance": Model(),
    "bound method": Model().method,
    "bound coroutine method": Model().async_method,
    "decorated bound method": transparent(Model().async_method),
    "class method": Model.of_class,
    "static method": Model.static,
    "instance that its class describes": DescribedByItsClass(),
    "class that is a mapping": Result,
    "class whose instances are awaitable": Eventual,
    "lambda": described(lambda inputs: {"text": inputs}),
    "lambda that gives a coroutine": described(lambda inputs: coroutine(inputs)),
    "takes a generator apart": takes_rows,
    "gives a generator in some cases": gives_rows_in_some_cases,
    "a name that is used twice": returns_what_was_a_generator,
    "decorated by one that collects": collecting(generator),
    "decorated by one that loops": looping(generator),
    "decorated by one that collects, decorated": transparent(collecting(generator)),
    "keywords": described(lambda **given: {"text": given["inputs"]}),
    **{name: way for name, way in ways(GoodWays()).items() if not name.startswith("__")},
}

BAD: dict[str, tuple[Any, str]] = {
    "generator function": (generator, "generator function: return the outputs"),
    "async generator function": (async_generator, "generator function: return the outputs"),
    "decorated generator function": (transparent(generator), "generator function"),
    "decorated async generator function": (transparent(async_generator), "generator function"),
    "partial of a generator function": (functools.partial(generator), "generator function"),
    "instance that generates": (Generating(), "generator function"),
    "method that generates": (Model().generating, "generator function"),
    "context manager": (contextmanager(generator), "generator function"),
    "hands a generator on": (gives_rows, "gives a generator, which answers no call"),
    "hands it on by a variable": (gives_rows_by_a_variable, "gives a generator"),
    "hands one on in all cases": (gives_rows_in_all_cases, "gives a generator"),
    "hands it on when awaited": (gives_rows_when_awaited, "gives a generator"),
    "hands it on, decorated": (transparent(gives_rows), "gives a generator"),
    "partial that hands it on": (functools.partial(gives_rows), "gives a generator"),
    "instance that hands it on": (Handing(), "gives a generator"),
    "decorated silently": (described(silent(generator)), "gives a generator"),
    "decorated silently and timed": (timing(described(silent(generator))), "gives a generator"),
    "timed generator function": (timing(generator), "generator function"),
    "timed twice": (timing(transparent(async_generator)), "generator function"),
    "lambda that hands it on": (described(lambda inputs: rows(inputs)), "gives a generator"),
    "lambda that makes one": (described(lambda inputs: (item for item in inputs)), "gives a generator"),
    **{name: (way, "gives a generator") for name, way in ways(Ways()).items() if not name.startswith("__")},
    "class": (described(type("Predictor", (), {})), "is a class"),
    "method of no instance": (Model.method, "name it by an instance"),
    "cached": (functools.lru_cache(plain), "functools.lru_cache"),
    "cached without bounds": (functools.cache(plain), "functools.lru_cache"),
    "cached coroutine function": (functools.cache(coroutine), "functools.lru_cache"),
    "cached method": (Model().cached, "functools.lru_cache"),
    "partial of a cached one": (functools.partial(functools.cache(plain)), "functools.lru_cache"),
    "dispatched by type": (functools.singledispatch(plain), "functools.singledispatch"),
    "decorated for positions": (by_position(plain), "the decorator must take **kwargs"),
    "decorated for another argument": (one_argument(plain), "the decorator must take **kwargs"),
    "positions": (described(lambda *given: {"text": given}), "takes *args alone"),
    "unknown argument": (with_a_threshold, "unknown required argument threshold"),
    "by position only": (described(eval("lambda inputs, /: inputs")), "remove the '/'"),
    "built-in": (len, "the docstring describes no inputs"),
    "no callable": ([], "is not a function but of type list"),
    "a coroutine": (Eventual([]), "is not a function"),
    "without a docstring": (lambda inputs: inputs, "there is no docstring"),
}


@pytest.fixture
def loading() -> Iterator[Callable[..., InferenceFunction]]:
    """Load an object as a module's ``predict``, or as its ``load``."""
    module = types.ModuleType("module_of_the_test")
    sys.modules[module.__name__] = module

    def start(predict: Any, loader: Any = None, **more: Any) -> InferenceFunction:
        module.__dict__.update(predict=predict, load=loader)
        reference = f"{module.__name__}:load" if loader else None
        settings = ServingSettings(f"{module.__name__}:predict", loader=reference, model_path="/m", **more)
        return load(settings, lambda awaitable: asyncio.run(awaited(awaitable)))

    yield start
    del sys.modules[module.__name__]


async def awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@pytest.mark.parametrize("case", GOOD)
def test_callables_that_can_serve(loading: Callable[..., InferenceFunction], case: str) -> None:
    inference = loading(GOOD[case])
    assert "inputs" in inference.arguments
    assert [variable.name for variable in inference.signature.inputs] == ["text"]


@pytest.mark.parametrize("case", BAD)
def test_callables_that_would_fail_every_call_are_refused(
    loading: Callable[..., InferenceFunction], case: str
) -> None:
    callable_, words = BAD[case]
    with pytest.raises(SetupError) as caught:
        loading(callable_)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "loader", [lambda: "model", lambda path: "model", functools.partial(lambda path, size: "model", size=1)]
)
def test_loaders(loading: Callable[..., InferenceFunction], loader: Any) -> None:
    assert loading(plain, loader).model == "model"


def test_what_a_loader_gives_to_await_is_awaited(loading: Callable[..., InferenceFunction]) -> None:
    async def later(path: str) -> str:
        return path

    assert loading(plain, later).model == "/m"
    assert loading(plain, transparent(later)).model == "/m"


def test_a_loader_that_yields_is_refused(loading: Callable[..., InferenceFunction]) -> None:
    def load_model(path: str) -> Iterator[str]:
        yield path

    for loader in (load_model, transparent(load_model)):
        with pytest.raises(SetupError, match="return the model instead of yielding it"):
            loading(plain, loader)


def test_files_without_a_box_are_refused(loading: Callable[..., InferenceFunction]) -> None:
    def classify(inputs: Any) -> Any:
        """Look at a picture.

        :param inputs.image: a picture
        :type inputs.image: FILE
        :param inputs.hint: a picture or a text
        :type inputs.hint: FILE or str
        :param inputs.mask: a picture, perhaps
        :type inputs.mask: FILE, optional
        :param outputs.drawing: a picture
        :type outputs.drawing: FILE
        """

    assert loading(classify).signature.inputs
    assert loading(classify, boxes=False, files_root="/files").signature.inputs
    with pytest.raises(SetupError, match="add connectedBoxes") as caught:
        loading(classify, boxes=False)
    assert ": inputs.image, outputs.drawing: a FILE needs a box" in str(caught.value)
