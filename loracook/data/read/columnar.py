"""Values of columnar data (Parquet, Arrow) as the JSON values they stand for.

A struct column has every field in every row, so that a key that a row lacks becomes a null: not data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

Convert = Callable[[Any], Any]


def row_converter(
    schema: pyarrow.Schema | None, json_value: Convert | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes plain values of a row with this schema; without one, every mapping counts as a struct.

    `json_value` converts a value of Arrow's JSON type, None where it is decoded already.
    """
    by_name = {field.name: _converter(field.type, json_value) for field in schema or ()}
    other = _without_nulls if schema is None else None
    return lambda row: {name: _apply(by_name.get(name, other), value) for name, value in row.items()}


def longest_list(values: pyarrow.Array) -> int:
    """The most mappings or lists that a list has in these values, or entries that a map has."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    kind = values.type
    if types.is_struct(kind):
        return max(map(longest_list, values.flatten()), default=0)
    if types.is_dictionary(kind):
        return longest_list(values.dictionary)
    if hasattr(values, "storage"):  # an extension type
        return longest_list(values.storage)
    if types.is_map(kind):
        lengths, entries = compute.pairwise_diff(values.offsets), values.items
    elif hasattr(kind, "value_type") and types.is_nested(kind.value_type):
        lengths, entries = compute.list_value_length(values), values.flatten()
    else:
        return 0
    return max(compute.max(lengths).as_py() or 0, longest_list(entries))


def _converter(kind: pyarrow.DataType, json_value: Convert | None) -> Convert | None:
    """What converts a value of this type, None where it stays as it is."""
    import pyarrow.types as types

    if types.is_struct(kind):
        fields = {field.name: _converter(field.type, json_value) for field in kind}
        return lambda value: _fields(value, fields)
    if types.is_map(kind):
        convert = _converter(kind.item_type, json_value)
        return lambda pairs: {str(key): _apply(convert, value) for key, value in dict(pairs).items()}
    if types.is_dictionary(kind):
        return _converter(kind.value_type, json_value)
    if hasattr(kind, "value_type"):  # a list of any kind
        convert = _converter(kind.value_type, json_value)
        return convert and (lambda values: [_apply(convert, value) for value in values])
    if getattr(kind, "extension_name", "") == "arrow.json":
        return json_value
    return _as_written if types.is_temporal(kind) or types.is_decimal(kind) else None


def _apply(convert: Convert | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def _fields(value: Any, fields: Mapping[str, Convert | None]) -> Any:
    """The fields of a struct that have a value; what datasets decoded to something else stays."""
    if not isinstance(value, dict):
        return value
    return {name: _apply(fields.get(name), part) for name, part in value.items() if part is not None}


def _as_written(value: Any) -> str:
    """A date or time in ISO 8601, a decimal number with its digits."""
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
