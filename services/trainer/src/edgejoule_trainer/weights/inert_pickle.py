"""Reading a pickle as data: nothing is imported, nothing in it is called.

A pickle is a program for a stack machine. Ours builds plain Python values; a class or function that the
program names stays a name, and whatever would be made by calling one becomes a ``Record`` of what it would
have been called with. Only a few names have a meaning here, all of them ours: dicts, sets, and tensors, which
are described (``StoredTensor``) and built later, from bytes and with checks.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from edgejoule.errors import WeightsError

MAX_OPCODES = 2_000_000
"""A YOLOv5s needs 36,000; at the limit, reading takes a few seconds."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object that a pickle would make with a class or function that is not called.

    attributes: what its ``__dict__`` would hold. items, entries: what it would hold as a list or a dict.
    """

    maker: Name
    arguments: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """A run of ``elements`` numbers that lies outside the pickle, under ``key``."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage: offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}

# fmt: off
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}
# fmt: on


def read_pickle(source: bytes | IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """The value that the next pickle in ``source`` describes, and every storage that it refers to, by key.

    Raises:
        WeightsError: it is malformed, too long, or uses what no weights file needs.
    """
    machine = _Machine()
    return machine.run(source), machine.storages


class _Machine:
    """The stack machine, opcode by opcode as ``pickletools`` decodes them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, source: bytes | IO[bytes]) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(source)):
                if count >= MAX_OPCODES:
                    raise WeightsError(f"it has more than {MAX_OPCODES} opcodes")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise WeightsError(f"its pickle is malformed ({type(error).__name__})") from error
        raise WeightsError("its pickle has no end")  # genops raises before; for the type checker

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        else:
            handler: Callable[[Any], None] | None = getattr(self, f"op_{opcode.lower()}", None)
            if handler is None:  # extension registry, out-of-band buffers, text ids
                raise WeightsError(f"it uses the pickle opcode {opcode}, which no weights file needs")
            handler(argument)

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        above = self.stack
        self.stack = self.below.pop()
        return above

    # --- stack, memo ---

    def op_proto(self, _: Any) -> None:
        pass

    op_frame = op_proto

    def op_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.pop_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    # --- containers ---

    def op_tuple(self, _: Any) -> None:
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def op_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def op_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def op_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def op_dict(self, _: Any) -> None:
        pairs = dict(_pairs(self.pop_mark()))
        self.stack.append(pairs)

    def op_frozenset(self, _: Any) -> None:
        items = frozenset(map(_key, self.pop_mark()))
        self.stack.append(items)

    def op_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.extend([item])

    def op_appends(self, _: Any) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Record) else _of_type(target, list)).extend(items)

    def op_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def op_setitems(self, _: Any) -> None:
        self.update(self.pop_mark())

    def update(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        (target.entries if isinstance(target, Record) else _of_type(target, dict)).update(_pairs(flat))

    def op_additems(self, _: Any) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(items)
        else:
            _of_type(target, set).update(map(_key, items))

    # --- names, and what would be made with them ---

    def op_global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        self.stack.append(Name(module, name))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Name(_of_type(module, str), _of_type(name, str)))

    def op_reduce(self, _: Any) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(_make(maker, _of_type(arguments, tuple)))

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        self.stack.pop()  # keyword arguments
        self.op_reduce(None)

    def op_inst(self, words: str) -> None:
        arguments = tuple(self.pop_mark())
        self.op_global(words)
        self.stack.append(_make(self.stack.pop(), arguments))

    def op_obj(self, _: Any) -> None:
        maker, *arguments = self.pop_mark()
        self.stack.append(_make(maker, tuple(arguments)))

    def op_build(self, _: Any) -> None:
        """State goes into a record; what else has one (a state dict's versions, a parameter's) needs none."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    target.attributes.update(part)

    def op_binpersid(self, _: Any) -> None:
        """torch names a storage by ("storage", type, key, device, elements), in older files with a view behind.

        There it also names each class of a module by ("module", class, file, source).
        """
        match self.stack.pop():
            case ("storage", Name() as kind, str() as key, _, int() as elements, *view) if (
                kind.module in ("torch", "torch.cuda")
                and kind.name in _STORAGES
                and elements >= 0
                and view in ([], [None])
            ):
                storage = Storage(key, _STORAGES[kind.name], elements)
                if self.storages.setdefault(key, storage) != storage:
                    raise WeightsError("it describes one storage in two ways")
                self.stack.append(storage)
            case ("module", Name() as kind, *_):
                self.stack.append(kind)
            case _:
                raise WeightsError("it refers to something outside itself that is no storage of numbers")


def _make(maker: Any, arguments: tuple[Any, ...]) -> Any:
    """What calling ``maker`` would give, where that is known to be data; else a record."""
    if isinstance(maker, Record):  # made by what was not called, so neither is this
        return Record(maker.maker, arguments)
    match str(_of_type(maker, Name)), arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", ([*pairs],):
            return {_key(key): value for key, value in pairs}
        case (("builtins.set" | "__builtin__.set"), ([*items],)):
            return set(map(_key, items))
        case "torch.Size", ((*sizes,),):
            return tuple(sizes)
        case (
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"),
            (Storage() as storage, int() as offset, (*size,), (*stride,), *_),
        ) if all(type(number) is int for number in (*size, *stride)):
            return StoredTensor(storage, offset, tuple(size), tuple(stride))
        case (
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"),
            (StoredTensor() as tensor, *_),
        ):
            return tensor
    return Record(maker, arguments)


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(map(_key, flat[::2]), flat[1::2], strict=True)


def _key(value: Any) -> Any:
    """A key whose hash costs nothing; a tuple of tuples of ... could take for ever."""
    return value if value is None or isinstance(value, str | bytes | int | float | Name) else Record(Name("", "key"))


def _of_type(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value
