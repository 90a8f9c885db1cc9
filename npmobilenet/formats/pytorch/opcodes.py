"""An interpreter of pickle's opcodes that executes nothing: it builds plain containers and descriptions of tensors.

`pickle.loads` calls whatever a file names. Here a name is a string that is looked up in a table (`constructors.py`):
what isn't in the table is refused by that name, and what is there is computed by functions of this project, of plain
values only. Nothing is imported, and no attribute is set on anything.

Source of the opcodes: python/cpython Lib/pickletools.py (3.13), protocols 0 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from npmobilenet.errors import ConversionError

MAX_OPCODES = 2_000_000  # a training checkpoint with its optimizer's state has some 100,000
MAX_BYTES = 32 * 2**20
_MAX_LONG = 64  # bytes of a whole number

MARK = object()
Resolve = Callable[[str, str], Any]  # module and name -> what stands for it; refuses by raising
Call = Callable[[Any, Any], Any]  # what stands for a callable, and its arguments -> result


class OpcodeError(ValueError):
    """The stream is damaged, or does what isn't done here; `read_pickle` says of which file."""


class _Machine:
    """The stack, the memo, and a method for each group of opcodes."""

    def __init__(self, data: bytes, resolve: Resolve, call: Call, load_persistent: Callable[[Any], Any]) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.resolve, self.call, self.load_persistent = resolve, call, load_persistent

    def run(self) -> Any:
        """The value that the stream ends with. Raises `OpcodeError`, or what `resolve` and `call` raise."""
        for _ in range(MAX_OPCODES):
            code = self.take(1)[0]
            if code == _STOP:
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise OpcodeError(f"opcode 0x{code:02x} at byte {self.at - 1}: none that is read here")
            step(self)
        raise OpcodeError(f"more than {MAX_OPCODES:,} opcodes")

    # -- bytes and stack -----------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.data) - self.at:
            raise OpcodeError(f"it ends at byte {len(self.data)}, in the middle of a value")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int) -> int:
        """The next bytes as a whole number, little-endian."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        """Up to the end of the line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise OpcodeError(f"a line that begins at byte {self.at} has no end")
        text = self.take(end - self.at)
        self.at += 1
        return text.decode("utf-8")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise OpcodeError(f"nothing is on the stack at byte {self.at}")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        """The uppermost value, which must be of this kind."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise OpcodeError(f"no {kind.__name__} is on the stack at byte {self.at}")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """Take what lies above the uppermost mark, and the mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise OpcodeError(f"no mark is on the stack at byte {self.at}")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    # -- containers ----------------------------------------------------------------------------------------------------

    def pop_mark(self) -> None:
        self.since_mark()

    def duplicate(self) -> None:
        self.push(self.top(object))

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        values = self.since_mark()
        self.top(list).extend(values)

    def fill(self, target: dict[Any, Any], values: list[Any]) -> None:
        """Keys are texts and small whole numbers: others could be made to collide by the million."""
        if len(values) % 2:
            raise OpcodeError(f"a key without a value at byte {self.at}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not (key is None or isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**31)):
                raise OpcodeError(f"a key of a dict is a {type(key).__name__}, expected a text or a small whole number")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.fill(self.top(dict), [key, value])

    def set_items(self) -> None:
        values = self.since_mark()
        self.fill(self.top(dict), values)

    def make_dict(self) -> None:
        target: dict[Any, Any] = {}
        self.fill(target, self.since_mark())
        self.push(target)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    # -- memo ----------------------------------------------------------------------------------------------------------

    def put(self, key: int) -> None:
        if not 0 <= key <= MAX_OPCODES:
            raise OpcodeError(f"memo {key}: expected 0 to {MAX_OPCODES}")
        self.memo[key] = self.top(object)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise OpcodeError(f"memo {key} was never written")
        self.push(self.memo[key])

    # -- names and what is made of them --------------------------------------------------------------------------------

    def name(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise OpcodeError(f"a name at byte {self.at} is no text")
        return self.resolve(module, name)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(self.name(module, name))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(self.call(function, arguments))

    def new_object(self, keywords: bool) -> None:
        named = self.pop() if keywords else {}
        if named:
            raise OpcodeError(f"an object with named arguments at byte {self.at}")
        self.reduce()

    def instance(self) -> None:
        module, name = self.line(), self.line()
        self.push(self.call(self.name(module, name), tuple(self.since_mark())))

    def object_of(self) -> None:
        values = self.since_mark()
        if not values:
            raise OpcodeError(f"an object without a class at byte {self.at}")
        self.push(self.call(values[0], tuple(values[1:])))

    def build(self) -> None:
        """An object's state: kept beside what stands for the object, never set on it."""
        state = self.pop()
        if isinstance(target := self.top(object), dict) and isinstance(state, dict):
            self.fill(target, [item for pair in state.items() for item in pair])

    def extension(self, width: int) -> None:
        raise OpcodeError(
            f"the name number {self.number(width)} of a registry (EXT{width}), which no file brings along"
        )

    def persistent(self) -> None:
        self.push(self.load_persistent(self.pop()))

    # -- plain values --------------------------------------------------------------------------------------------------

    def text(self, width: int, encoding: str = "utf-8") -> None:
        self.push(self.take(self.number(width)).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))

    def quoted(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"" or "\\" in line:
            raise OpcodeError(f"a quoted text at byte {self.at} that isn't plain")
        self.push(line[1:-1])

    def integer(self) -> None:
        line = self.line().rstrip("L")
        if len(line) > 2 * _MAX_LONG:
            raise OpcodeError(f"a whole number of {len(line)} digits")
        self.push({"00": False, "01": True}[line] if line in ("00", "01") else int(line))

    def long(self, width: int) -> None:
        length = self.number(width)
        if length > _MAX_LONG:
            raise OpcodeError(f"a whole number of {length} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True))


_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], object]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m.take(1),  # PROTO
        "\x95": lambda m: m.take(8),  # FRAME
        "(": lambda m: m.push(MARK),
        "0": lambda m: m.pop(),
        "1": _Machine.pop_mark,
        "2": _Machine.duplicate,
        # plain values
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _Machine.integer,
        "L": _Machine.integer,
        "J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
        "K": lambda m: m.push(m.number(1)),
        "M": lambda m: m.push(m.number(2)),
        "\x8a": lambda m: m.long(1),
        "\x8b": lambda m: m.long(4),
        "F": lambda m: m.push(float(m.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "S": _Machine.quoted,
        "T": lambda m: m.text(4, "latin-1"),
        "U": lambda m: m.text(1, "latin-1"),
        "V": lambda m: m.push(m.line()),
        "X": lambda m: m.text(4),
        "\x8c": lambda m: m.text(1),
        "\x8d": lambda m: m.text(8),
        "B": lambda m: m.push(m.take(m.number(4))),
        "C": lambda m: m.push(m.take(m.number(1))),
        "\x8e": lambda m: m.push(m.take(m.number(8))),
        "\x96": lambda m: m.push(m.take(m.number(8))),
        # containers; a set is a list here
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.since_mark()),
        "a": _Machine.append,
        "e": _Machine.extend,
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.since_mark())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "}": lambda m: m.push({}),
        "d": _Machine.make_dict,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "\x8f": lambda m: m.push([]),
        "\x90": _Machine.extend,
        "\x91": lambda m: m.push(m.since_mark()),
        # memo
        "p": lambda m: m.put(_index(m.line())),
        "q": lambda m: m.put(m.number(1)),
        "r": lambda m: m.put(m.number(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "g": lambda m: m.get(_index(m.line())),
        "h": lambda m: m.get(m.number(1)),
        "j": lambda m: m.get(m.number(4)),
        # names and what is made of them
        "c": lambda m: m.push(m.name(m.line(), m.line())),
        "\x93": _Machine.stack_global,
        "R": _Machine.reduce,
        "b": _Machine.build,
        "\x81": lambda m: m.new_object(keywords=False),
        "\x92": lambda m: m.new_object(keywords=True),
        "i": _Machine.instance,
        "o": _Machine.object_of,
        "\x82": lambda m: m.extension(1),
        "\x83": lambda m: m.extension(2),
        "\x84": lambda m: m.extension(4),
        "P": lambda m: m.push(m.load_persistent(m.line())),
        "Q": _Machine.persistent,
    }.items()
}


def _index(line: str) -> int:
    return int(line) if line.isascii() and line.isdigit() and len(line) < 9 else -1


def run(data: bytes, resolve: Resolve, call: Call, load_persistent: Callable[[Any], Any]) -> Any:
    """The value of a pickle. Raises `OpcodeError`; `ConversionError` of the three functions passes through."""
    if len(data) > MAX_BYTES:
        raise OpcodeError(f"it has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        return _Machine(data, resolve, call, load_persistent).run()
    except (OpcodeError, ConversionError):
        raise
    except (ValueError, struct.error, OverflowError, MemoryError) as error:
        raise OpcodeError(f"a value that can't be read ({type(error).__name__}: {str(error)[:80]})") from error
