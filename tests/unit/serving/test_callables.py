"""Which callables can serve. Those that would fail every call are refused at set-up, with what to do."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from controller.serving.config import ServingSettings
from controller.serving.loading import InferenceFunction, SetupError, load

#: Together they take seconds.
pytestmark = pytest.mark.slow


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


def silent(function: Any) -> Any:
    """A decorator that does not say what it wraps."""

    def wrapper(inputs: Any) -> Any:
        return function(inputs=inputs)

    return wrapper


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
    "generator function": generator,
    "async generator function": async_generator,
    "decorated generator function": transparent(generator),
    "decorated silently": described(silent(generator)),
    "partial of a generator function": functools.partial(generator),
    "instance that generates": Generating(),
    "method that generates": Model().generating,
    "lambda that makes a generator": described(lambda inputs: (item for item in inputs)),
    "keywords": described(lambda **given: {"text": given["inputs"]}),
}

BAD: dict[str, tuple[Any, str]] = {
    "context manager": (contextmanager(generator), "decorated as a context manager"),
    "async context manager": (asynccontextmanager(async_generator), "decorated as a context manager"),
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
    assert inference.yields == ("generator function" in case or "generates" in case)


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
