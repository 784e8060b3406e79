"""Any value of any struct of the model, drawn from its own type: for round trips, which must not depend on what makes sense."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec.inspect as mi
from hypothesis import strategies as st

T = TypeVar("T")

ROWS_MAX = 3
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
HOSTILE = (
    "",
    "'; DROP TABLE events; --",
    'a"b\\c',
    "\n\r\t",
    "\x00",
    "\x1b[31m",
    "[bold]x[/bold]",
    "\u202egnp.exe",
    "名前",
    "x" * 300,
    "💥",
)


def values_of(kind: type[T]) -> st.SearchStrategy[T]:
    """Values of a type, within the bounds that its fields name."""
    return _drawn(mi.type_info(kind))


def _drawn(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.StructType():
            fields = {field.name: _drawn(field.type) for field in info.fields}
            return st.builds(info.cls, **fields)
        case mi.IntType():
            least = info.ge if info.ge is not None else -(1 << 40)
            most = info.le if info.le is not None else 1 << 52
            return st.integers(least, most)
        case mi.StrType():
            least_letters, most_letters = info.min_length or 0, info.max_length
            texts = st.one_of(TEXTS, st.sampled_from(HOSTILE))
            bounded = info.min_length is not None or most_letters is not None
            return texts.map(lambda text: (text or "x" * least_letters)[:most_letters]) if bounded else texts
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.LiteralType():
            return st.sampled_from(sorted(info.values, key=repr))
        case mi.UnionType():
            return st.one_of([_drawn(each) for each in info.types])
        case mi.VarTupleType():
            least_rows = info.min_length or 0
            return st.lists(_drawn(info.item_type), min_size=least_rows, max_size=max(least_rows, ROWS_MAX)).map(tuple)
        case mi.TupleType():
            return st.tuples(*(_drawn(each) for each in info.item_types))
        case mi.DictType():
            return st.dictionaries(_drawn(info.key_type), _drawn(info.value_type), max_size=ROWS_MAX)
        case _:
            raise TypeError(f"values of {info} are not drawn here")
