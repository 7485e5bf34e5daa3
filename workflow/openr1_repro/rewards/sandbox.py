"""Run an untrusted program on this machine with bubblewrap, or not at all.

What a program gets: namespaces of its own (users, processes, network, IPC, host name, cgroups), no network, a root of
read-only /usr and nothing else of this machine, an empty environment, /tmp in memory, no capabilities, no new user
namespaces, no system calls that only attacks make (ptrace, keys, bpf, io_uring, …), and limits on processor time, clock
time, memory, processes, open files, file size and output. When it ends, so does everything it started: the process
namespace goes with its first process.

Memory is limited twice: for each process by the kernel, for all together by looking every 20 ms.
"""

import contextlib
import fcntl
import math
import os
import resource
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache

from openr1_repro.stage import UserError

UNPRIVILEGED = 65534
"""User and group (nobody) that a program runs as: also outside, where the caller is root."""
PROCESSES = 64
OUTPUT_BYTES = 16 * 2**20
FILE_BYTES = 64 * 2**20
"""What all files of a program may hold, in memory."""

COMPILERS = {
    "cpp": ["g++", "-x", "c++", "-std=c++17", "-O2", "-I", "/box", "-o", "/tmp/program"],
}
COMMANDS = {
    "python": ["PYTHON", "-I", "-S", "/box/main"],
    "javascript": ["node", "--max-old-space-size=MEMORY", "/box/main"],
    "cpp": ["/box/program"],
}
"""How a program of a language is run here; its source is /box/main, a compiled one /box/program."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended. ``code`` is None if it was stopped, and ``stopped`` says by which limit."""

    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    stopped: str | None = None


@dataclass(frozen=True)
class Limits:
    """``memory_mb`` is for all processes of a program together, and for each."""

    seconds: float = 5.0
    """Processor time of each process, in whole seconds; by the clock a program has four times as long."""
    memory_mb: int = 512
    processes: int = PROCESSES
    output_bytes: int = OUTPUT_BYTES
    address_space: bool = field(default=True, kw_only=True)
    """Count reserved memory too; false for node, which reserves far more than it uses."""


@cache
def check_available() -> None:
    """Try an empty sandbox once.

    Raises:
        UserError: if bubblewrap is missing or may not make namespaces. Nothing is ever run without it.
    """
    if shutil.which("bwrap") is None:
        raise UserError(
            "code_provider: local needs bubblewrap to run programs safely: apt-get install bubblewrap, "
            "or choose code_provider: e2b, morph or piston"
        )
    outcome = run(["/usr/bin/true"], {}, b"", Limits())
    if outcome.code != 0:
        raise UserError(
            "code_provider: local: bubblewrap cannot make a sandbox here "
            f"({outcome.stderr.decode(errors='replace').strip() or outcome.stopped}); allow unprivileged user "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; "
            "in Docker: --security-opt seccomp=unconfined), or choose code_provider: e2b, morph or piston"
        )


def command(language: str, limits: Limits) -> list[str]:
    """The command of a program whose source or binary is under /box."""
    values = {"PYTHON": _python(), "--max-old-space-size=MEMORY": f"--max-old-space-size={limits.memory_mb}"}
    return [values.get(word, word) for word in COMMANDS[language]]


def compile_program(language: str, files: dict[str, bytes], limits: Limits) -> tuple[bytes | None, Outcome]:
    """Compile /box/main, inside the sandbox too; the program leaves it as bytes, None if it does not compile."""
    words = " ".join(COMPILERS[language])
    script = f"{words} /box/main >&2 && cat /tmp/program"
    outcome = run(["/bin/sh", "-c", script], files, b"", limits)
    return (outcome.stdout if outcome.code == 0 else None), outcome


def run(words: list[str], files: dict[str, bytes], stdin: bytes, limits: Limits) -> Outcome:
    """Run ``words`` in a new sandbox, with ``files`` (name to content) read-only and executable in /box."""
    with contextlib.ExitStack() as stack:
        data = []
        for name, content in files.items():
            descriptor = os.memfd_create(name)
            stack.callback(os.close, descriptor)
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            data.append((name, descriptor))
        descriptors = [descriptor for _, descriptor in data]
        arguments = _bubblewrap(words, data, limits)
        if program := _filter():
            descriptors.append(os.memfd_create("seccomp"))
            stack.callback(os.close, descriptors[-1])
            os.pwrite(descriptors[-1], program, 0)
            arguments[1:1] = ["--seccomp", str(descriptors[-1])]
        return _supervise(arguments, descriptors, stdin, limits)


def _bubblewrap(words: list[str], data: list[tuple[str, int]], limits: Limits) -> list[str]:
    arguments = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    arguments += ["--clearenv", "--uid", str(UNPRIVILEGED), "--gid", str(UNPRIVILEGED), "--hostname", "sandbox"]
    arguments += ["--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            arguments += ["--ro-bind", f"/{name}", f"/{name}"]
    for path in ("/etc/ld.so.cache", "/etc/alternatives"):
        if os.path.exists(path):
            arguments += ["--ro-bind", path, path]
    if not _python().startswith("/usr/"):
        arguments += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--size", str(2**20), "--tmpfs", "/dev/shm"]
    arguments += ["--perms", "1777", "--size", str(FILE_BYTES), "--tmpfs", "/tmp", "--perms", "0755", "--dir", "/box"]
    for name, descriptor in data:
        arguments += ["--perms", "0555", "--ro-bind-data", str(descriptor), f"/box/{name}"]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}.items():
        arguments += ["--setenv", name, value]
    memory = limits.memory_mb * 2**20
    # Set inside, where the count of processes is the sandbox's own; and a clock inside, should we be killed before
    # bubblewrap has asked to die with us.
    bounds = ["timeout", "--signal=KILL", str(4 * limits.seconds + 5), "prlimit"]
    bounds += [f"--nproc={limits.processes}", f"--data={memory}", f"--fsize={FILE_BYTES}", "--core=0"]
    bounds += [f"--cpu={math.ceil(limits.seconds)}", "--nofile=256"]
    bounds += [f"--as={memory}"] if limits.address_space else []
    return [*arguments, "--", *bounds, "--", *words]


# Numbers of the system calls that no honest program makes here and that attacks on a kernel begin with: ptrace,
# process_vm_readv, process_vm_writev, add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, io_uring_setup,
# io_uring_enter, io_uring_register, kexec_load, init_module, finit_module, delete_module, unshare, setns, mount.
_FORBIDDEN = {
    "x86_64": (
        0xC000003E,
        (101, 310, 311, 248, 249, 250, 321, 298, 323, 425, 426, 427, 246, 175, 313, 176, 272, 308, 165),
    ),
    "aarch64": (
        0xC00000B7,
        (117, 270, 271, 217, 218, 219, 280, 241, 282, 425, 426, 427, 104, 105, 273, 106, 97, 268, 40),
    ),
}


@cache
def _filter() -> bytes:
    """A seccomp program for `_FORBIDDEN`, which fail with EPERM; empty on an architecture without numbers here."""
    if os.uname().machine not in _FORBIDDEN:
        return b""
    architecture, calls = _FORBIDDEN[os.uname().machine]
    load, equal, greater, leave = 0x20, 0x15, 0x35, 0x06  # classic BPF: word at, jump if =, jump if >=, return
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (leave, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(greater, len(calls) + 1, 0, 0x40000000)]  # x32's numbers
    steps += [(equal, len(calls) - index, 0, call) for index, call in enumerate(calls)]
    steps += [(leave, 0, 0, allow), (leave, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _supervise(arguments: list[str], descriptors: list[int], stdin: bytes, limits: Limits) -> Outcome:
    started = time.monotonic()
    clock, look = started + 4 * limits.seconds, started
    root = os.geteuid() == 0
    process: subprocess.Popen[bytes] = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
        env={"PATH": "/usr/bin:/bin"},  # /proc/1/environ shows it inside: nothing of ours
        start_new_session=True,
        bufsize=0,
        # root is exempt from limits on processes, and owns files that nobody else may read
        user=UNPRIVILEGED if root else None,
        group=UNPRIVILEGED if root else None,
        extra_groups=[] if root else None,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    output: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    pending = memoryview(stdin)
    stopped: str | None = None
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # fewer turns for megabytes; refused where a user has many large pipes
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 2**20)
            fcntl.fcntl(stream, fcntl.F_SETFL, fcntl.fcntl(stream, fcntl.F_GETFL) | os.O_NONBLOCK)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(0.02):
                if key.fileobj is process.stdin:
                    try:
                        pending = pending[os.write(key.fd, pending) :] if pending else pending
                    except BrokenPipeError:
                        pending = pending[:0]
                    if not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                elif chunk := os.read(key.fd, 2**20):
                    output[key.fd] += chunk
                else:
                    selector.unregister(key.fileobj)
            if stopped:
                if time.monotonic() > clock + 10:  # whoever holds the pipes is beyond killing; do not wait
                    break
            elif time.monotonic() > clock:
                stopped = "time"
            elif sum(map(len, output.values())) > limits.output_bytes:
                stopped = "output"
            elif time.monotonic() > look:
                look = time.monotonic() + 0.02
                stopped = "memory" if _resident_bytes(process.pid) > limits.memory_mb * 2**20 else None
            if stopped and process.poll() is None:
                process.kill()  # its child has asked to die with it, and takes the process namespace along
    code = process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    out, err = (bytes(chunks[: limits.output_bytes]) for chunks in output.values())
    if code == 128 + signal.SIGKILL and not stopped:  # by the kernel, for its processor time
        stopped = "time"
    return Outcome(None if stopped else code, out, err, time.monotonic() - started, stopped)


def _resident_bytes(pid: int) -> int:
    """Resident memory of the processes below ``pid``: bubblewrap's first one, and all that it is an ancestor of."""
    total, ahead = 0, [pid]
    while ahead:
        pid = ahead.pop()
        try:
            with open(f"/proc/{pid}/statm") as stream:
                total += int(stream.read().split()[1]) * resource.getpagesize()
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as stream:
                    ahead += map(int, stream.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


@cache
def _python() -> str:
    return shutil.which("python3", path="/usr/bin") or os.path.realpath(sys.executable)
