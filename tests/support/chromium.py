#!/usr/bin/env -S python3 -I
"""Chromium that does not see networks come and go. Run as a program in place of it, with its arguments.

Chromium ends all its requests with ERR_NETWORK_CHANGED when an interface of the host gets or loses an address, which
containers of tests that run beside it do all the time. It learns of that by a netlink socket, and goes without when
there is none: a filter of system calls, inherited by its processes, refuses these sockets.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import socket
import struct
import sys

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
#: The number of socket(2), by machine.
_SOCKET = {"x86_64": 41, "aarch64": 198}
# <linux/prctl.h>, <linux/seccomp.h>
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
# <linux/bpf_common.h>; offsets of `nr` and of the first argument in struct seccomp_data
_LOAD, _JUMP_UNLESS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def refuse_netlink() -> None:
    """Let this process, and all that it starts, create no netlink sockets. Does nothing on machines not known here."""
    number = _SOCKET.get(platform.machine())
    if number is None:
        return
    instructions = (  # operation, jump if true, jump if false, value
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_UNLESS_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_UNLESS_EQUAL, 0, 1, socket.AF_NETLINK),
        (_RETURN, 0, 0, _REFUSE | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    filter_program = _Program(len(instructions), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SET_SECCOMP, _FILTER, ctypes.byref(filter_program), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "the filter of system calls was refused")


if __name__ == "__main__":
    found = program()
    if found is None:
        sys.exit(f"None of {', '.join(PROGRAMS)} is installed.")
    refuse_netlink()
    os.execv(found, [found, *sys.argv[1:]])  # noqa: S606 (there is nothing to quote)
