"""Mutations of bytes, of texts and of JSON, and of formats whose checksums must fit for more than the first look."""

from __future__ import annotations

import copy
import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

Mutation: TypeAlias = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""(chance, content, other contents) → another content."""

MOST_BYTES = 2**20
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WORD, LOOKED_AT = re.compile(r'"[^"\n]*"|[\w.+-]+|[^\w\s]|\n'), 2000
DEEP = "@deep@"
TWICE = "@twice@"
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 7.5, 2**31, 2**63, 10**30, 10**400, 1e308, 1e-300, float("nan"), float("inf"), "", "0",
    "1e9", "x" * 10_000, "\0", "a\nb", "\x1b[2J", "\u202e", "\u2028", "\ud800", "\ufeff", "e\u0301", "\U0001f408", "٣",
    "../..", "/etc/passwd", "C:\\x", "[1, 2]", "{}", "train", [], {}, [None], [[1]], {"": None}, {"a": {"b": 1}}, DEEP,
    "a" * 200 + "/", [0] * 3000, "%s{0}", "nan", "-0", "9" * 5000, "http://127.0.0.1:9/x", "[red]",
]  # fmt: skip
ODD_WORDS = (
    "", "0", "-1", "1", "1e999", "nan", "inf", "-0.0", "9" * 20, "9" * 5000, "0x10", "true", "null", "None", '"', "'",
    '""', '"""', "\\", "\\u0000", "\\ud800", ",", ",,", ";", "\t", "|", " ", "\n", "\r", "\n\n", "\0", "\x1b[2J",
    "\u202e", "\u2028", "\u0085", "\ufeff", "e\u0301", "\u212b", "\U0001f408", "٣", "²", "#", "# ", "//", "..", "/",
    "[", "]", "{", "}", "[[", "]]", "[" * 3000, "{'a':" * 200, "a." * 90, "x" * 10_000, "=", ":", "@", "sep=;\n", "a;b",
    "['a', 'b']", "2020-01-01", "00:00", "1_000", "train", "label", "image", "id", "split", "group",
)  # fmt: skip


def several(chance: Random, edits: Sequence[Callable[[], None]]) -> None:
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(edits)()


def of_bytes(tokens: Sequence[bytes] = ()) -> Mutation:
    """Any bytes; `tokens` are what the format has."""

    def mutated(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
        data = bytearray(content)

        def place() -> int:
            at = chance.randint(0, len(data))
            return at if chance.random() < 0.5 else min(at, chance.randint(0, 256))  # headers matter most

        def span() -> slice:
            at = place()
            return slice(at, at + chance.choice((1, 2, 4, 8, 16, 64, 512, chance.randint(1, len(data) + 1))))

        def flip() -> None:
            for _ in range(chance.randint(1, 3)):
                data[min(place(), len(data) - 1)] ^= 1 << chance.randrange(8)

        def number() -> None:
            at, size = place(), chance.choice((1, 2, 4, 8))
            value = chance.choice(NUMBERS) + chance.choice((0, 0, 0, 1, -1, 16, len(data)))
            some = (value % 256**size).to_bytes(size, chance.choice(("little", "big")))
            data[at : at + size] = some

        def insert() -> None:
            data[place() : 0] = chance.randbytes(chance.choice((1, 2, 4, 16, 100)))

        def delete() -> None:
            del data[span()]

        def truncate() -> None:
            del data[place() :]

        def repeat() -> None:
            where = span()
            piece = bytes(data[where])
            times = min(chance.choice((1, 1, 2, 10, 1000, 20_000)), MOST_BYTES // (len(piece) + 1))
            data[where.start : where.start] = piece * times

        def move() -> None:
            piece, at = data[span()], place()
            data[at : at + len(piece)] = piece

        def zero() -> None:
            where = span()
            data[where] = bytes([chance.choice((0, 0, 255, 32))]) * len(data[where])

        def splice() -> None:
            other = chance.choice([*others, content])
            at = chance.randint(0, len(other))
            data[place() :] = other[at:]

        def token() -> None:
            at, some = place(), chance.choice([*tokens, b"\0"])
            data[at : at + len(some) * chance.randint(0, 1)] = some

        edits = [flip, flip, number, number, insert, delete, truncate, repeat, move, zero, splice]

        def one() -> None:
            if not data:
                data.extend(b"\0")
            chance.choice([*edits, *([token] * 3 if tokens else ())])()
            del data[MOST_BYTES:]

        several(chance, [one])
        return bytes(data)

    return mutated


RAW = of_bytes()


def of_text(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A text of words, marks and lines; sometimes in another encoding, or with any bytes."""
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True) or [""]

    def word() -> None:
        at = chance.randrange(len(lines))
        line, last = lines[at], len(lines[at])
        found = [one.span() for one in WORD.finditer(line[:LOOKED_AT])] or [(last, last)]
        (start, end), other = chance.choice(found), slice(*chance.choice(found))
        new = chance.choice((*ODD_WORDS, line[start:end] * 2, line[other])) if chance.random() < 0.9 else ""
        lines[at] = line[:start] + new + line[end:]

    def line() -> None:
        one, at = chance.choice(lines), chance.randint(0, len(lines))
        if chance.random() < 0.3 and len(lines) > 1:
            lines.remove(one)
        else:
            lines[at:at] = [one] * min(chance.choice((1, 1, 2, 1000)), MOST_BYTES // 8 // (len(one) + 1))

    several(chance, [word, word, line])
    text = "".join(lines)
    if chance.random() < 0.1:
        encoding = chance.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252", "latin-1"))
        return text.encode(encoding, "replace")[:MOST_BYTES]
    data = text.encode("utf-8", "surrogatepass" if chance.random() < 0.5 else "replace")[:MOST_BYTES]
    return RAW(chance, data, others) if chance.random() < 0.2 else data


def of_json(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Values, keys and lists of JSON; sometimes its text."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):  # mutated before
        value = None
    if value is None or chance.random() < 0.15:
        return of_text(chance, content, others)
    return odd_json(chance, value).encode("utf-8", "surrogatepass")[:MOST_BYTES]


def odd_json(chance: Random, value: Any) -> str:
    """The text of JSON with other values somewhere in it, or without some, or with a key twice."""
    holder = [value]

    def change() -> None:
        places = list(_places(holder))
        held, key = places[0] if chance.random() < 0.02 else chance.choice(places)
        match chance.randrange(6):
            case 0 if held is not holder:
                del held[key]
            case 1:
                other, at = chance.choice(places)
                held[key] = json.loads(json.dumps(other[at]))
            case 2 if isinstance(held, dict):
                held[chance.choice([str(odd)[:50] for odd in ODD])] = held.pop(key)
            case 3 if isinstance(held, dict):
                held[key + TWICE] = copy.deepcopy(chance.choice(ODD))
            case 4 if isinstance(held[key], list):
                held[key] = held[key] * chance.choice((2, 1000))
            case _:
                held[key] = copy.deepcopy(chance.choice(ODD))

    several(chance, [change])
    depth = chance.choice((100, 900, 5000, 100_000))
    text = json.dumps(holder[0], ensure_ascii=chance.random() < 0.8)
    return text.replace(TWICE, "").replace(f'"{DEEP}"', "[" * depth + "]" * depth)


def _places(value: Any) -> Any:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from _places(value[key])


def of_members(inside: Callable[[str], Mutation], *, stored: bool) -> Mutation:
    """A zip file: names and contents of members, whose checksums fit; sometimes any bytes.

    `inside` gives the mutation of a member by its name; `stored`: nothing is compressed.
    """

    def mutated(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
        if chance.random() < 0.3:
            return of_bytes((b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"up\x09\0"))(
                chance, content, others
            )
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(one.filename, archive.read(one)) for one in archive.infolist()]

        def change() -> None:
            i = chance.randrange(len(members))
            name, data = members[i]
            match chance.randrange(8):
                case 0:
                    members[i] = (odd_name(chance, name), data)
                case 1:
                    members.insert(chance.randint(0, i), (name, data))
                case 2 if len(members) > 1:
                    del members[i]
                case _:
                    members[i] = (name, inside(name)(chance, data, [data for _, data in members]))

        several(chance, [change])
        file = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
            warnings.simplefilter("ignore")  # a name twice
            for name, data in members:
                info = zipfile.ZipInfo(name)
                if not stored:
                    info.compress_type = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                                                        zipfile.ZIP_LZMA))  # fmt: skip
                    info.extra = chance.choice(
                        (b"", b"", b"up\x06\0\1\0\0\0\0a", b"up\xff\xff\1", b"\1\0\x10\0" + bytes(16))
                    )
                    info.external_attr = chance.choice((0, 0, 0, 0o120777 << 16, 0x10))
                archive.writestr(info, data)
        whole = bytearray(file.getvalue())
        if chance.random() < 0.2:  # sizes, offsets and flags in the list at the end
            at = whole.rfind(b"PK\1\2") + chance.randint(4, 46)
            whole[at : at + 4] = struct.pack("<I", chance.choice(NUMBERS) % 2**32)
        return bytes(whole)

    return mutated


def odd_name(chance: Random, name: str) -> str:
    return chance.choice((
        "", "/", "//", ".", "..", f"../{name}", f"/{name}", name.replace("/", "\\"), f"{name}/", f".{name}",
        "a/" * 100 + name, "n" * 5000 + name, f"a\nb\x1b[2J/{name}", f"\u202e{name}", f"e\u0301/{name}", f"\xe9/{name}",
        f"train/{name}", f"val/{name}", "classes.txt", "metadata.csv", f"\U0001f408{name}", name.partition(".")[0],
        f"{name.partition('.')[0]}.cls", f"{name.partition('.')[0]}.json", f"__MACOSX/{name}",
    ))  # fmt: skip


def of_tar(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Headers of a tar, field by field, whose checksums mostly fit."""
    data = bytearray(content)
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]

    def field() -> None:
        at = chance.choice(heads)
        start, size = chance.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
        some = chance.choice((
            b"", b"0" * 11, b"7" * 12, b"77777777777\0", b"\x80" + bytes(7) + b"\xff" * 4, b"\xff" * 12, b"-1", b"9",
            b" 12 ", b"\x80" + b"\xff" * 11, odd_name(chance, "a/0.png").encode(), b"x", b"g", b"L", b"K", b"S", b"5",
            b"2", b"7", b"V",
        ))  # fmt: skip
        data[at + start : at + start + size] = some[:size].ljust(size, b"\0")

    def records() -> None:
        """A header that describes the next one."""
        at, kind = chance.choice(heads), chance.choice((b"x", b"g", b"L", b"K", b"S"))
        key = chance.choice((b"path", b"size", b"GNU.sparse.map", b"linkpath", b"hdrcharset"))
        value = chance.choice((b"", b"1" * 19, b"-1", b"a\nb", b"\xff", odd_name(chance, "a/0.png").encode()))
        body = b" %s=%s\n" % (key, value)
        text = (b"%d" % (len(body) + chance.choice((2, 3, 0, 10**6)))) + body if kind in b"xg" else value + b"\0"
        head = bytearray(data[at : at + 512])
        head[156:157], head[124:136] = kind, b"%011o\0" % len(text)
        data[at:at] = (head + text + bytes(-len(text) % 512)) * chance.choice((1, 1, 2, 20))

    def anything() -> None:
        data[:] = RAW(chance, bytes(data), others)

    several(chance, [field, field, records, anything] if heads else [anything])
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar" and chance.random() < 0.95:
            data[at + 148 : at + 156] = b"%06o\0 " % (sum(data[at : at + 148]) + 256 + sum(data[at + 156 : at + 512]))
    return bytes(data[:MOST_BYTES])


def of_png(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Chunks of a PNG, whose checksums fit."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    i = chance.randrange(len(chunks))
    kind, data = chunks[i]
    match chance.randrange(5):
        case 0:
            chunks[i] = (chance.choice((b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"acTL", b"zTXt", b"iTXt", b"IDAT")), data)
        case 1:
            chunks.insert(chance.randint(0, len(chunks)), (kind, data))
        case 2 if kind == b"IDAT":
            chunks[i] = (kind, zlib.compress(RAW(chance, zlib.decompress(data), [])))
        case _:
            chunks[i] = (kind, RAW(chance, data, []))
    crc = [(kind + data, zlib.crc32(kind + data)) for kind, data in chunks]
    return content[:8] + b"".join(struct.pack(">I", len(one) - 4) + one + struct.pack(">I", sum_) for one, sum_ in crc)
