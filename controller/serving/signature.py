"""What an inference function takes and gives. It is read from the docstring (``docstring``) or from type hints
(``hinted``)."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Optional

from .datatypes import Datatype

if TYPE_CHECKING:
    from .forms import Form


@dataclasses.dataclass(frozen=True)
class Variable:
    """One input or output; ``datatypes`` in the order written, never empty. From type hints: what they say of the data
    of each datatype (``forms``), and the value that stands for an input that is left out, as JSON, if it has one.
    ``line``: of its type in the docstring, 0 if that does not describe it."""

    name: str
    datatypes: tuple[Datatype, ...]
    optional: bool
    description: str
    forms: tuple[Form, ...] = ()
    default: Any = None
    line: int = dataclasses.field(default=0, compare=False)

    def form(self, datatype: Datatype) -> Optional[Form]:
        """What the type hint says of data of this datatype, if there is one."""
        return self.forms[self.datatypes.index(datatype)] if self.forms else None


class ResultForm(enum.Enum):
    """How a function gives its outputs."""

    LISTED = "as a list of outputs, or a mapping of names to values"
    SINGLE = "as the value of its only output"
    MEMBERS = "as the members of an object"


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of the function, in the order written. ``arrays``: it takes numbers as arrays of numpy;
    ``stacked``: one for all calls of a batch. ``by_name``: it takes each input as an argument."""

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    summary: str
    description: str
    arrays: bool = False
    by_name: bool = False
    result: ResultForm = ResultForm.LISTED
    stacked: bool = False
