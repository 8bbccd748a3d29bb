"""What the Linux kernel takes from a process for good: system calls by seccomp, files by Landlock, capabilities.

All of it needs no privilege and no namespaces, holds for every program that the process starts, and can't be undone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LANDLOCK = (444, 445, 446)
_CLONE_THREAD = 0x00010000

# Numbers of system calls (asm/unistd.h), and the name by which BPF knows the machine (linux/audit.h).
_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "seccomp": 317, "capset": 126, "socket": 41, "clone": 56, "fork": 57, "vfork": 58, "clone3": 435,
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "io_uring_setup": 425, "unshare": 272,
            "setns": 308, "mount": 165, "umount2": 166, "move_mount": 429, "pivot_root": 155, "bpf": 321,
            "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "pidfd_getfd": 438,
            "setsid": 112,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "seccomp": 277, "capset": 91, "socket": 198, "clone": 220, "clone3": 435, "ptrace": 117,
            "process_vm_readv": 270, "process_vm_writev": 271, "io_uring_setup": 425, "unshare": 97, "setns": 268,
            "mount": 40, "umount2": 39, "move_mount": 429, "pivot_root": 41, "bpf": 280, "perf_event_open": 241,
            "userfaultfd": 282, "keyctl": 219, "add_key": 217, "pidfd_getfd": 438, "setsid": 157,
        },
    ),
}  # fmt: skip
_NEVER = (
    "ptrace", "process_vm_readv", "process_vm_writev", "io_uring_setup", "unshare", "setns", "mount", "umount2",
    "move_mount", "pivot_root", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "pidfd_getfd",
    "setsid",
)  # fmt: skip
"""Ways into other processes, out of the rules or the session that ends with the worker, or around them."""


class NotPossible(OSError):
    """The kernel, or this machine, can't do it."""


def refuse_calls(*, network: bool, processes: bool) -> None:
    """Refuse system calls from now on, in every thread: sockets unless ``network``, children unless ``processes``.

    Pairs of sockets within the process stay. What is refused fails with EACCES or EPERM. Raise NotPossible.
    """
    machine = _machine()
    audit, numbers = machine
    program = [_load(4), _jump(0x15, audit, 1, 0), _return(_ERRNO | errno.EPERM), _load(0)]
    if audit == 0xC000003E:  # the x32 calls have other numbers
        program += [_jump(0x35, 0x40000000, 0, 1), _return(_ERRNO | errno.EPERM)]
    for name in _NEVER:
        program += [_jump(0x15, numbers[name], 0, 1), _return(_ERRNO | errno.EPERM)]
    if not network:
        program += [_jump(0x15, numbers["socket"], 0, 1), _return(_ERRNO | errno.EACCES)]
    if not processes:
        for name in ("fork", "vfork"):
            if name in numbers:
                program += [_jump(0x15, numbers[name], 0, 1), _return(_ERRNO | errno.EPERM)]
        # clone3 keeps its flags where a filter can't look: without it the C library makes threads by clone.
        program += [_jump(0x15, numbers["clone3"], 0, 1), _return(_ERRNO | errno.ENOSYS)]
        program += [
            _jump(0x15, numbers["clone"], 0, 3),
            _load(16),
            _jump(0x45, _CLONE_THREAD, 1, 0),
            _return(_ERRNO | errno.EPERM),
        ]
    program.append(_return(_ALLOW))
    instructions = ctypes.create_string_buffer(b"".join(program))
    wanted = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(instructions)))
    _no_new_privileges()
    if _libc().syscall(numbers["seccomp"], _SECCOMP_SET_MODE_FILTER, _TSYNC, wanted):
        raise NotPossible(ctypes.get_errno(), "the kernel takes no seccomp filter")


def hide_files(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leave of all files only these, and what lies below them; other processes can't be signalled any more.

    It holds for this thread and those it starts: call it before there are others. Paths that don't exist are left
    out. Raise NotPossible.
    """
    _machine()
    libc = _libc()
    version = libc.syscall(_LANDLOCK[0], None, 0, 1)
    if version < 1:
        raise NotPossible(ctypes.get_errno(), "the kernel has no Landlock")
    execute, write_file, read_file, read_dir = 1, 2, 4, 8
    everything = (1 << 13) - 1  # of the first version: read, write, make and remove all kinds of files
    everything |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    devices = 1 << 15 if version >= 5 else 0
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals
    rules = struct.pack("QQQ", everything | devices, 0, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = libc.syscall(_LANDLOCK[0], rules, len(rules), 0)
    if ruleset < 0:
        raise NotPossible(ctypes.get_errno(), "the kernel takes no Landlock rules")
    try:
        for paths, access in (
            (readable, execute | read_file | read_dir),
            (writable, everything | devices),
        ):
            for path in paths:
                _allow(libc, ruleset, path, access, execute | write_file | read_file | (everything & 1 << 14) | devices)
        _no_new_privileges()
        if libc.syscall(_LANDLOCK[2], ruleset, 0):
            raise NotPossible(ctypes.get_errno(), "the kernel does not apply Landlock rules")
    finally:
        os.close(ruleset)


def drop_capabilities() -> None:
    """Give up whatever root may do beyond owning its files. Does nothing for other accounts. Raise NotPossible."""
    if os.geteuid() != 0:
        return
    _, numbers = _machine()
    libc = _libc()
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that the kernel doesn't know
    _no_new_privileges()
    if libc.syscall(numbers["capset"], struct.pack("Ii", 0x20080522, 0), bytes(24)):
        raise NotPossible(ctypes.get_errno(), "capabilities can't be dropped")


def _machine() -> tuple[int, dict[str, int]]:
    found = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or found is None or sys.maxsize < 2**32:
        raise NotPossible(errno.ENOSYS, f"{sys.platform} on {platform.machine()} has no rules for programs here")
    return found


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _no_new_privileges() -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise NotPossible(ctypes.get_errno(), "privileges can't be given up")


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int, of_files: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= of_files
        if libc.syscall(_LANDLOCK[1], ruleset, 1, struct.pack("=Qi", access, place), 0):
            raise NotPossible(ctypes.get_errno(), f"the kernel takes no rule for {path}")
    finally:
        os.close(place)


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _return(value: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, value)
