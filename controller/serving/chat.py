"""Chat completions of OpenAI's API -> calls of the inference function, and its results -> completions and their chunks.
Pure; ``openai`` calls it.

The function has an input ``messages`` (dict) and an output ``content`` (str), or ``result``, as type hints call the
only one. Every other member of a request whose name is that of an input becomes that input; the rest come as
``parameters``. What would change the form of the reply (several choices, tools) is refused, unless the function has an
input for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple, Optional

from . import problems
from .datatypes import Datatype
from .docstring import required_files
from .fault_texts import MAX_FAULTS, json_name, quoted
from .jsontext import encode
from .outputs import BadOutput
from .problems import RequestFault, ServingProblem
from .signature import Signature, Variable
from .streams import event
from .validate import Check

MESSAGES, CONTENT, FINISH = "messages", "content", "finish_reason"
RESULT = "result"  # in place of content
PROMPT_TOKENS, COMPLETION_TOKENS = "prompt_tokens", "completion_tokens"
FINISH_REASONS = ("stop", "length", "content_filter")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
DONE = b"data: [DONE]\n\n"
_OURS = frozenset({MESSAGES, "model", "stream", "stream_options", "n"})
#: Two names for one parameter, an old one and a new one.
_SAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
#: What would change the form of the reply, and the values that do not.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}


def unfit(signature: Signature) -> list[str]:
    """Why a function cannot answer chats, for its developer; none if it can."""
    inputs = {variable.name: variable for variable in signature.inputs}
    outputs = {variable.name: variable for variable in signature.outputs}
    wanted = [
        (inputs.get(MESSAGES), f"inputs.{MESSAGES}", "dict", {Datatype.DICT}, True),
        (outputs.get(content_of(signature)), f"outputs.{CONTENT}", "str", {Datatype.STR}, True),
        (outputs.get(FINISH), f"outputs.{FINISH}", "str", {Datatype.STR}, False),
        (outputs.get(PROMPT_TOKENS), f"outputs.{PROMPT_TOKENS}", "INT32", _WHOLE, False),
        (outputs.get(COMPLETION_TOKENS), f"outputs.{COMPLETION_TOKENS}", "INT32", _WHOLE, False),
    ]
    found = []
    for variable, name, word, datatypes, needed in wanted:
        if variable is None:
            found += [f"it has no {name} of type {word}"] if needed else []
        elif not datatypes >= set(variable.datatypes):
            found.append(f"{name} must be of type {word}")
    if (messages := inputs.get(MESSAGES)) and any(form.rank == 0 for form in messages.forms):
        found.append(f"argument {MESSAGES} is one object by its type hint: write list[dict]")
    return found + [f"{name} is a FILE, which a chat cannot carry" for name in required_files(signature)]


def content_of(signature: Signature) -> str:
    """The name of the output that has the text."""
    names = {variable.name for variable in signature.outputs}
    return RESULT if RESULT in names and CONTENT not in names else CONTENT


_WHOLE = frozenset(datatype for datatype in Datatype if datatype.whole)


class ChatRequest(NamedTuple):
    """One request. ``call``: what the function is called with, in the platform's own form."""

    call: dict[str, Any]
    stream: bool
    include_usage: bool


class ChatReader:
    """Reads requests for one component. ``check`` is that of its calls."""

    def __init__(self, model: str, signature: Signature, check: Check) -> None:
        self._model = model
        self._inputs = {variable.name: variable for variable in signature.inputs}
        self._check = check

    def read(self, body: Any) -> ChatRequest:
        """Raises ServingProblem 400 or 404."""
        if not isinstance(body, dict):
            raise problems.invalid(
                [RequestFault("", f"must be an object, not {json_name(body)}")], problems.INVALID_VALUE
            )
        _raise_if(chain(_members(body), _messages(body.get(MESSAGES))))
        self._refuse(body)
        if body["model"] != self._model:
            raise unknown_model(body["model"], self._model)
        call = {"inputs": list(self._given(body)), "parameters": list(self._others(body))}
        _raise_if(self._placed(fault, call["inputs"]) for fault in self._check(call))
        options = body.get("stream_options") or {}
        return ChatRequest(call, body.get("stream") is True, options.get("include_usage") is True)

    def _refuse(self, body: Mapping[str, Any]) -> None:
        if (body.get("n") or 1) != 1:
            raise _unsupported("n", "this component makes one choice: leave it out, or call several times")
        for name, harmless in _REFUSED.items():
            value = body.get(name)
            if value is not None and value not in harmless and name not in self._inputs:
                raise _unsupported(name, "this component does not support it: leave it out")

    def _given(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The inputs of the function."""
        for name, variable in self._inputs.items():
            value = body.get(name)
            if value is None and name in _SAME:
                value = body.get(_SAME[name])
            if name == MESSAGES:
                messages = [_plain_message(message) for message in body[MESSAGES]]
                yield {"name": name, "datatype": "dict", "shape": [len(messages)], "data": messages}
            elif value is not None:
                yield _input(variable, value)

    def _others(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the function has no input for."""
        for name, value in body.items():
            known = name in self._inputs or _SAME.get(name) in self._inputs
            if value is not None and not known and name not in _OURS:
                yield {"name": name, "data": value}

    @staticmethod
    def _placed(fault: RequestFault, inputs: list[dict[str, Any]]) -> RequestFault:
        """A fault of an input as one of the member that it came from."""
        _, _, index, *rest = [*fault.pointer.split("/"), ""]
        if not index.isdigit():
            return RequestFault("", fault.detail)
        below = rest[1:-1] if rest[:1] == ["data"] else []
        return RequestFault("/".join(["", inputs[int(index)]["name"], *below]), fault.detail)


def _input(variable: Variable, value: Any) -> dict[str, Any]:
    """An input of a datatype that the value fits, else of the first one, of which the check tells."""
    if variable.name == "stop" and isinstance(value, str):
        value = [value]
    element = value[0] if isinstance(value, list) and value else value
    fitting = [datatype for datatype in variable.datatypes if _may_be(datatype, element)]
    item = {"name": variable.name, "datatype": (fitting or variable.datatypes)[0].value, "data": value}
    return {**item, "shape": [len(value)]} if isinstance(value, list) else item


def _may_be(datatype: Datatype, value: Any) -> bool:
    if isinstance(value, (str, dict)):
        return datatype is (Datatype.STR if isinstance(value, str) else Datatype.DICT)
    if isinstance(value, bool) or datatype is Datatype.BOOL:
        return isinstance(value, bool) and datatype is Datatype.BOOL
    return datatype.numeric and (isinstance(value, int) or not datatype.whole)


# --- what is wrong ----------------------------------------------------------------------------------------------


def unknown_model(asked: str, known: str) -> ServingProblem:
    return ServingProblem(
        problems.MODEL_NOT_FOUND,
        f"there is no model {quoted(asked)} here; this component is {known!r}",
        [RequestFault("/model", "is not known")],
    )


def _unsupported(name: str, why: str) -> ServingProblem:
    return ServingProblem(problems.UNSUPPORTED, f"{name}: {why}", [RequestFault(f"/{name}", why)])


def _raise_if(faults: Iterable[RequestFault]) -> None:
    """Raise the first faults; no others are made, since a request may have millions."""
    told = list(islice(faults, MAX_FAULTS))
    if told:
        raise problems.invalid(told, problems.INVALID_VALUE)


def _number(low: float, high: float) -> Callable[[Any], str]:
    def wrong(value: Any) -> str:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"must be a number within {low:g}..{high:g}"

    return wrong


def _whole(least: int) -> Callable[[Any], str]:
    def wrong(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return "" if fits else f"must be an integer from {least}"

    return wrong


def _of(kind: type, words: str) -> Callable[[Any], str]:
    return lambda value: "" if isinstance(value, kind) else f"must be {words}"


def _stop(value: Any) -> str:
    texts = value if isinstance(value, list) else [value]
    fits = 1 <= len(texts) <= 4 and all(isinstance(text, str) and text for text in texts)
    return "" if fits else "must be a string, or an array of one to four strings"


_KINDS: dict[str, Callable[[Any], str]] = {
    "model": _of(str, "a string"),
    "stream": _of(bool, "true or false"),
    "stream_options": _of(dict, "an object"),
    "n": _whole(1),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "max_tokens": _whole(1),
    "max_completion_tokens": _whole(1),
    "seed": _whole(-(2**63)),
    "stop": _stop,
    "user": _of(str, "a string"),
}


def _members(body: Mapping[str, Any]) -> Iterator[RequestFault]:
    for name, wrong in _KINDS.items():
        value = body.get(name)
        if value is None:
            if name == "model":
                yield RequestFault("/model", "is missing")
        elif words := wrong(value):
            yield RequestFault(f"/{name}", words)
    options = body.get("stream_options")
    if isinstance(options, dict):
        if body.get("stream") is not True:
            yield RequestFault("/stream_options", "belongs to a stream, and stream is not true")
        if not isinstance(options.get("include_usage", False), (bool, type(None))):
            yield RequestFault("/stream_options/include_usage", "must be true or false")


def _messages(value: Any) -> Iterator[RequestFault]:
    if value is None:
        yield RequestFault("/messages", "is missing")
    elif not isinstance(value, list):
        yield RequestFault("/messages", f"must be an array, not {json_name(value)}")
    elif not value:
        yield RequestFault("/messages", "must have at least one message")
    else:
        for index, message in enumerate(value):
            yield from _message(message, f"/messages/{index}")


def _message(message: Any, pointer: str) -> Iterator[RequestFault]:
    if not isinstance(message, dict):
        yield RequestFault(pointer, f"must be an object, not {json_name(message)}")
        return
    if message.get("role") not in ROLES:
        yield RequestFault(f"{pointer}/role", f"must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list) and content:
        for index, part in enumerate(content):
            if not _is_text(part):
                yield RequestFault(f"{pointer}/content/{index}", "must be a part of type text")
    elif not isinstance(content, str) and not (content is None and message.get("role") == "assistant"):
        yield RequestFault(f"{pointer}/content", "must be a string, or an array of parts of type text")


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is one text."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    return {**message, "content": content or ""}


# --- replies ----------------------------------------------------------------------------------------------------


class ChatAnswer:
    """The answer to one request: a completion, or its chunks."""

    #: A result that was not yielded is a chunk, too.
    takes_results = True

    def __init__(
        self, model: str, request_id: str, created: int, include_usage: bool, content: str = CONTENT
    ) -> None:
        self._content = content
        self._head = {"id": f"chatcmpl-{request_id}", "created": created, "model": model}
        self._include_usage = include_usage
        self._finish = "stop"
        self._prompt_tokens = 0
        self._completion_tokens: Optional[int] = None  # as the function counts them
        self._pieces = 0
        self._begun = False

    def completion(self, reply: Mapping[str, Any]) -> bytes:
        """The whole of it, from all that the function gave. Raises BadOutput."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self._take(reply), "refusal": None},
            "logprobs": None,
            "finish_reason": self._finish,
        }
        return encode(
            {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}
        )

    def item(self, reply: Mapping[str, Any]) -> bytes:
        """The chunk of one item. Raises BadOutput."""
        return self._chunk({"content": self._take(reply)})

    def end(self) -> bytes:
        """What comes behind the last item."""
        last = [self._chunk({} if self._begun else {"content": ""}, self._finish)]
        if self._include_usage:
            last.append(self._event({"choices": [], "usage": self._usage()}))
        return b"".join([*last, DONE])

    def _chunk(self, delta: dict[str, Any], finish: Optional[str] = None) -> bytes:
        if not self._begun:
            delta = {"role": "assistant", **delta}
        self._begun = True
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._event({"choices": [choice], **({"usage": None} if self._include_usage else {})})

    def _event(self, members: dict[str, Any]) -> bytes:
        return event(encode({**self._head, "object": "chat.completion.chunk", **members}))

    def _take(self, reply: Mapping[str, Any]) -> str:
        """The text of outputs; what they say of the whole is kept. Raises BadOutput."""
        given = {output["name"]: output["data"] for output in reply["outputs"]}
        pieces = _listed(given.get(self._content))
        self._pieces += len(pieces)
        reasons, prompt, completion = (
            _listed(given.get(name)) for name in (FINISH, PROMPT_TOKENS, COMPLETION_TOKENS)
        )
        if reasons:
            self._finish = reasons[-1]
        if self._finish not in FINISH_REASONS:
            raise BadOutput(
                f"output {FINISH!r} is {quoted(self._finish)}, not one of {', '.join(FINISH_REASONS)}"
            )
        if prompt:
            self._prompt_tokens = prompt[-1]
        if completion:
            self._completion_tokens = completion[-1]
        return "".join(pieces)

    def _usage(self) -> dict[str, int]:
        completion = self._pieces if self._completion_tokens is None else self._completion_tokens
        return {
            PROMPT_TOKENS: self._prompt_tokens,
            COMPLETION_TOKENS: completion,
            "total_tokens": self._prompt_tokens + completion,
        }


def _listed(data: Any) -> list[Any]:
    """The values of an output that are there."""
    return [value for value in (data if isinstance(data, list) else [data]) if value is not None]
