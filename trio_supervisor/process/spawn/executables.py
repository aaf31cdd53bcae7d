r"""Check whether Linux can execute a binary, from its first bytes: ELF, binfmt_misc."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from typing import Final

_BINFMT: Final = "/proc/sys/fs/binfmt_misc"
# e_machine values by uname's machine; of a 64-bit kernel with its 32-bit variant.
_MACHINES: Final = {
    "x86_64": frozenset({62, 3}),
    "aarch64": frozenset({183, 40}),
    "riscv64": frozenset({243}),
    "ppc64le": frozenset({21}),
    "s390x": frozenset({22}),
}
_NAMES: Final = {
    3: "i386",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC 64",
    22: "s390",
    40: "ARM",
    62: "x86-64",
    183: "ARM 64 (aarch64)",
    243: "RISC-V",
    258: "LoongArch",
}
_EMPTY_SIZE: Final = 256
_EMULATOR_TIMEOUT: Final = 5.0
# e_type of executables: ET_EXEC, and ET_DYN (position-independent).
_PROGRAMS: Final = (2, 3)
_INTERPRETER: Final = 3  # PT_INTERP
_TEXT: Final = frozenset(range(32, 127)) | set(b"\t\n\r\f")


def binary_problem(path: str, head: bytes) -> str:
    """Return why a file without #! line that begins with *head* cannot be executed."""
    if head.startswith(b"\x7fELF"):
        return _elf_problem(head)
    if _is_registered(path, head):
        return ""
    if _is_text(head):
        return "has no #! line that names its interpreter"
    return "is not in a format that this system can execute"


def _is_registered(path: str, head: bytes) -> bool:
    """Return whether binfmt_misc may have an interpreter for the file.

    True also if that is unknown, since it is not mounted in most containers; but not
    for text, which is never registered.
    """
    try:
        names = set(os.listdir(_BINFMT))
    except OSError:
        names = set()
    if "status" not in names:
        return not _is_text(head) and _has_binfmt()
    formats = names - {"status", "register"}
    return any(_matches(f"{_BINFMT}/{name}", path, head) for name in formats)


def _has_binfmt() -> bool:
    try:
        with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
            return "binfmt_misc" in file.read()
    except OSError:
        return True


def _matches(entry: str, path: str, head: bytes) -> bool:
    try:
        with open(entry, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    if not lines or lines[0] != "enabled":
        return False
    words = dict(line.partition(" ")[::2] for line in lines[1:])
    if (extension := words.get("extension")) is not None:
        return path.endswith(extension)
    try:
        magic = bytes.fromhex(words["magic"])
        mask = bytes.fromhex(words.get("mask", "ff" * len(magic)))
        offset = int(words.get("offset", "0"))
    except (KeyError, ValueError):
        return True
    part = head[offset : offset + len(magic)]
    if len(part) < len(magic):
        return False
    return all((a ^ b) & m == 0 for a, b, m in zip(part, magic, mask, strict=False))


def _is_emulated(head: bytes) -> bool:
    """Return whether an emulator such as QEMU may be registered for *head*'s machine.

    The registry cannot be read where binfmt_misc is not mounted, as in most containers;
    so an empty file with this header is executed as a test.
    """
    with open(os.memfd_create("machine"), "wb") as file:
        file.write(head[:20] + bytes(_EMPTY_SIZE))
        file.flush()
        # A file that is open for writing cannot be executed (ETXTBSY).
        descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
    try:
        subprocess.run(
            [f"/proc/self/fd/{descriptor}"],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_EMULATOR_TIMEOUT,
            check=False,
        )
    except OSError as exc:
        return exc.errno != errno.ENOEXEC
    except subprocess.TimeoutExpired:
        return True
    finally:
        os.close(descriptor)
    return True


def _is_text(head: bytes) -> bool:
    return all(byte in _TEXT or byte >= 128 for byte in head[:128])


def _elf_problem(head: bytes) -> str:
    is_64, order = head[4:5] == b"\x02", "<" if head[5:6] == b"\x01" else ">"
    try:
        kind, machine = struct.unpack_from(order + "HH", head, 16)
        ours = os.uname().machine
        if ours in _MACHINES and machine not in _MACHINES[ours]:
            name = _NAMES.get(machine, f"machine {machine}")
            problem = f"is a binary for {name}, but this machine is {ours}"
            return "" if _is_emulated(head) else problem
        if kind not in _PROGRAMS:
            return "is an object file, not an executable"
        loader = _loader_of(head, is_64, order)
    except struct.error:
        return "is a truncated binary"
    if loader and not os.path.exists(loader):
        return (
            f"needs the dynamic loader {loader}, which does not exist: it was built "
            f"for another system or C library"
        )
    return ""


def _loader_of(head: bytes, is_64: bool, order: str) -> str:
    """Return the path in PT_INTERP; empty: static binary, or not within *head*."""
    if is_64:
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        (offset,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    for number in range(count):
        place = offset + number * size
        if place + size > len(head):
            return ""
        (kind,) = struct.unpack_from(order + "I", head, place)
        if kind == _INTERPRETER:
            start, at = ("Q", 8) if is_64 else ("I", 4)
            length_at = 32 if is_64 else 16
            (begin,) = struct.unpack_from(order + start, head, place + at)
            (length,) = struct.unpack_from(order + start, head, place + length_at)
            if begin + length > len(head):
                return ""
            return os.fsdecode(head[begin : begin + length].rstrip(b"\0"))
    return ""
