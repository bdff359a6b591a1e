"""Calls the developer's function for a batch: many calls' arguments -> one call -> each call's own result or error.

The function gets each argument as a list with one element a call, and ``model`` as ever. With ``:type inputs: stacked
arrays`` in its docstring it gets one list of inputs, in which each input holds the values of all calls: numbers as one
array with a dimension more in front. It returns a list with one result a call, each in any form of a result, or, when
its inputs are stacked, a mapping of names to as many values. An exception in place of a result is that call's error.

When the function raises for several calls, they are tried again in halves, down to each alone, so that one bad input
fails its own call.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from . import log, processes
from .batches import Batch, BatchLimiter, BatchMember
from .limiter import LimitedCall
from .loading import InferenceFunction
from .metrics import ProcessMetrics
from .outputs import BadOutput
from .streams import Begin, awaited, is_stream

SHARED = "model"  # the argument that is the same for all calls


class CallFailed(Exception):
    """The function raised or returned an error for one call, which is the cause of this one. It is not raised itself:
    one that the module returns again and again would keep the frames of all its calls."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.__cause__ = error


class BatchedFunction:
    """The inference function, called for batches. One for each worker."""

    def __init__(
        self, inference: InferenceFunction, limiter: BatchLimiter, row: ProcessMetrics, begin: Begin
    ) -> None:
        self._inference = inference
        self._stacked = inference.signature.stacked
        self._names = [variable.name for variable in inference.signature.inputs]
        self._limiter = limiter
        self._row = row
        self._begin = begin

    def result(self, arguments: dict[str, Any], call: LimitedCall) -> Any:
        """One call's own result. Raises its own error: CallFailed with what the function raised or returned for it,
        BadOutput, and what the limiter raises."""
        key = stack_key(arguments.get("inputs", ())) if self._stacked else None
        member = BatchMember(call, arguments, key)
        batch = self._limiter.join(member)
        if batch is not None:
            try:
                self._begin_and_run(batch)
            except BaseException as error:  # noqa: BLE001 -- each call raises it on its own thread
                for left in batch.members:
                    if not left.done:
                        self._limiter.deliver(left, None, error)
            finally:
                self._limiter.finish(batch)
        return member.outcome()

    def _begin_and_run(self, batch: Batch) -> None:
        """Raises only what is a fault of ours."""
        for member in batch.members:
            try:
                member.call.begins()
            except Exception as error:  # noqa: BLE001 -- it is that call's own
                self._limiter.deliver(member, None, error)
        self._row.batching(1)
        try:
            self._run(batch)
        finally:
            self._row.batching(-1)

    def _run(self, batch: Batch) -> None:
        """Give each call of the batch its outcome."""
        parts = [batch.members]
        while parts:
            members = _present(parts.pop())
            if not members:
                continue
            try:
                results = self._results(members, batch)
            except BadOutput as error:
                for member in members:
                    self._limiter.deliver(member, None, error)
            except BaseException as error:  # noqa: BLE001 -- also SystemExit: their code must not end our thread
                processes.end_if_forked(self._inference.name)
                if len(members) == 1:
                    self._limiter.deliver(members[0], None, CallFailed(error))
                elif left := _present(members):
                    self._log_failure(error, members)
                    half = (len(left) + 1) // 2
                    parts += [left[half:], left[:half]]
            else:
                self._deliver(members, results)

    def _results(self, members: list[BatchMember], batch: Batch) -> list[Any]:
        """Call the function once; one result a call. Raises BadOutput, and what the function raises."""
        self._row.batched(len(members))
        result = self._inference.function(**self._merged([member.arguments for member in members]))
        if type(result) is not list:
            result = awaited(result, self._begin, batch)
        processes.end_if_forked(self._inference.name)
        if is_stream(result):
            raise BadOutput("the function yields its results, which cannot be done in a batch: return a list")
        return divided(result, len(members), self._stacked)

    def _deliver(self, members: list[BatchMember], results: list[Any]) -> None:
        for member, result in zip(members, results):
            if isinstance(result, BaseException):
                self._limiter.deliver(member, None, CallFailed(result))
            else:
                self._limiter.deliver(member, result)

    def _merged(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        merged = {name: [call[name] for call in calls] for name in calls[0] if name != SHARED}
        if SHARED in calls[0]:
            merged[SHARED] = calls[0][SHARED]
        if self._stacked and "inputs" in merged:
            merged["inputs"] = stacked(self._inference.numpy, merged["inputs"], self._names)
        return merged

    def _log_failure(self, error: BaseException, members: list[BatchMember]) -> None:
        kind, count = type(error).__name__, len(members)
        log.write_line(
            f"{self._inference.name} raised {kind} for {count} calls, which are tried again in halves"
        )


def _present(members: list[BatchMember]) -> list[BatchMember]:
    return [member for member in members if not (member.done or member.gone)]


def stack_key(inputs: list[dict[str, Any]]) -> Hashable:
    """What inputs have in common that can be stacked: names, datatypes, and the shapes of arrays."""
    return tuple(
        sorted((item["name"], item["datatype"], getattr(item["data"], "shape", ())) for item in inputs)
    )


def stacked(numpy: Any, calls: list[list[dict[str, Any]]], names: list[str]) -> list[dict[str, Any]]:
    """The inputs of several calls, which have the same key, as one list of inputs in the order of ``names``."""
    columns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for inputs in calls:
        for item in inputs:
            columns[item["name"]].append(item)
    return [_column(numpy, items) for items in columns.values() if items]


def _column(numpy: Any, items: list[dict[str, Any]]) -> dict[str, Any]:
    values: Any = [item["data"] for item in items]
    column = {"name": items[0]["name"], "datatype": items[0]["datatype"], "data": values}
    if hasattr(values[0], "shape"):
        column["data"] = numpy.stack(values)
        column["shape"] = list(column["data"].shape)
    return column


def divided(result: Any, count: int, by_name: bool) -> list[Any]:
    """What the function returned for a batch as one result a call. ``by_name``: it may be a mapping of names to one
    value a call. Raises BadOutput."""
    if isinstance(result, (list, tuple)):
        if len(result) != count:
            raise BadOutput(
                f"the function returned {_many(len(result), 'result')} for {_many(count, 'call')}"
            )
        return list(result)
    if not by_name or not isinstance(result, Mapping):
        kind = "nothing" if result is None else f"a value of type {type(result).__name__}"
        raise BadOutput(f"the function returned {kind} for a batch, not a list with one result a call")
    columns = {name: _column_of(name, values, count) for name, values in result.items()}
    return [_row(columns, index) for index in range(count)]


def _row(columns: Mapping[str, list[Any]], index: int) -> Any:
    """One call's values, or the exception among them."""
    row = {name: values[index] for name, values in columns.items()}
    return next((value for value in row.values() if isinstance(value, BaseException)), row)


def _column_of(name: str, values: Any, count: int) -> list[Any]:
    """One output's values in their order, whatever index they may have. Raises BadOutput."""
    try:
        found = -1 if isinstance(values, (str, bytes, Mapping)) else len(values)
    except TypeError:  # it has none, as a number or an array without dimensions
        found = -1
    if found < 0:
        kind = type(values).__name__
        raise BadOutput(f"output {name!r} is a value of type {kind} for a batch, not one value a call")
    if found != count:
        raise BadOutput(f"output {name!r} has {_many(found, 'value')} for {_many(count, 'call')}")
    return list(values)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
