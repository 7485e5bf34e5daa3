"""Programs that attack the machine they run on. None may reach anything outside its sandbox, or outlast its limits."""

import http.server
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from openr1_repro.rewards import sandbox
from openr1_repro.rewards.sandbox import Limits

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

LIMITS = Limits(seconds=1.0, memory_mb=256)
SLOW = Limits(seconds=20.0, memory_mb=256)
"""For honest programs: on a busy machine, even those take their time."""


def python(source, stdin=b"", limits=LIMITS):
    return sandbox.run(sandbox.command("python", limits), {"main": source.encode()}, stdin, limits)


def test_an_honest_program():
    outcome = python("print(sum(map(int, input().split())))", b"2 3\n", SLOW)
    assert (outcome.code, outcome.stdout, outcome.stopped) == (0, b"5\n", None)


# Each prints BREACH if it got what it was after; `secret` is a file, `port` a server, `pid` a process of this machine.
ATTACKS = {
    "read a host file": "print('BREACH' if 'SECRET' in open({secret!r}).read() else '')",
    "read the password file": "print('BREACH', open('/etc/passwd').read())",
    "read the shadow file": "print('BREACH', open('/etc/shadow').read())",
    "list the home": "import os; print('BREACH', os.listdir('/root'))",
    "list homes": "import os; print('BREACH', os.listdir('/home'))",
    "list the project": "import os; print('BREACH', os.listdir({here!r}))",
    "read an environment variable": "import os; print('BREACH' if os.environ.get('REWARD_SECRET') else '')",
    "read the first process's environment": "print('BREACH' if b'SECRET' in open('/proc/1/environ', 'rb').read() else '')",
    "read all environments":
        "import glob\nfor p in glob.glob('/proc/[0-9]*/environ'):\n  print('BREACH' if b'REWARD_SECRET' in open(p,'rb').read() else '')",
    "write to usr": "open('/usr/owned', 'w'); print('BREACH')",
    "write to etc": "open('/etc/owned', 'w'); print('BREACH')",
    "write to the root": "open('/owned', 'w'); print('BREACH')",
    "write to dev": "open('/dev/owned', 'w'); print('BREACH')",
    "overwrite the program": "open('/box/main', 'w'); print('BREACH')",
    "write to the work folder": "open('/box/owned', 'w'); print('BREACH')",
    "remount the root": "import ctypes; print('BREACH' if ctypes.CDLL(None).mount(b'', b'/usr', b'', 4128, b'') == 0 else '')",
    "mount a new proc": "import ctypes; print('BREACH' if ctypes.CDLL(None).mount(b'p', b'/tmp', b'proc', 0, b'') == 0 else '')",
    "change root": "import os; os.chroot('/tmp'); print('BREACH')",
    "new user namespace": "import ctypes; print('BREACH' if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    "enter a namespace": "import os, ctypes\nf=os.open('/proc/1/ns/mnt', 0)\nprint('BREACH' if ctypes.CDLL(None).setns(f, 0) == 0 else '')",
    "set the user id": "import os; os.setuid(0); print('BREACH')",
    "run a setuid program": "import os\nos.system('su -c id root 2>/dev/null; mount -t tmpfs x /tmp 2>/dev/null && echo BREACH')\nprint('BREACH' if os.geteuid() == 0 else '')",
    "make a setuid file": "import os\nopen('/tmp/s','w').write('#!/bin/sh\\nid -u')\nos.chmod('/tmp/s', 0o6755)\nprint('BREACH' if os.popen('/tmp/s').read().strip() == '0' else '')",
    "reach a server here": "import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('BREACH')",
    "reach the network": "import socket; socket.create_connection(('1.1.1.1', 53), 1); print('BREACH')",
    "resolve a name": "import socket; socket.getaddrinfo('example.com', 80); print('BREACH')",
    "send a datagram": "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('8.8.8.8', 53)); print('BREACH')",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('BREACH')",
    "abstract socket": "import socket; s=socket.socket(socket.AF_UNIX); s.connect('\\0' + {abstract!r}); print('BREACH')",
    "see other processes": "import os; print('BREACH' if len([p for p in os.listdir('/proc') if p.isdigit()]) > 4 else '')",
    "kill the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "kill a host process": "import os, signal\nos.kill({pid}, signal.SIGKILL); print('BREACH')",
    "kill everything": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "trace the first process": "import ctypes; print('BREACH' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else '')",
    "read the first process's memory": "open('/proc/1/mem', 'rb').read(1); print('BREACH')",
    "symlink to a host file": "import os; os.symlink({secret!r}, '/tmp/l'); print('BREACH', open('/tmp/l').read())",
    "symlink to the first process's root": "print('BREACH' if 'SECRET' in open('/proc/1/root' + {secret!r}).read() else '')",
    "climb out by dots": "print('BREACH', open('/tmp/../../../../..' + {secret!r}).read())",
    "hard link": "import os; os.link('/usr/bin/python3', '/usr/bin/owned'); print('BREACH')",
    "inherited files": "import os\nfor f in range(3, 256):\n  try: os.fstat(f); print('BREACH', os.readlink(f'/proc/self/fd/{{f}}'))\n  except OSError: pass",
    "device": "import os; os.mknod('/tmp/d', 0o60600, os.makedev(8, 0)); print('BREACH')",
    "raise a limit": "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2); print('BREACH')",
    "raise the priority": "import os; os.nice(-5); print('BREACH')",
    "kernel log": "print('BREACH', open('/dev/kmsg').read(1))",
    "kernel setting": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'); print('BREACH')",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('b'); print('BREACH')",
    "host name": "import socket; socket.sethostname('owned'); print('BREACH')",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0); print('BREACH')",
    "type into the terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x'); print('BREACH')",
    "shared memory of the host": "import os; print('BREACH' if 'reward_shm' in os.listdir('/dev/shm') else '')",
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """What an attack may be after: a secret file, a server, a process, a variable, shared memory."""
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text("SECRET")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    import socket

    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0rewards-{os.getpid()}")
    abstract.listen()
    os.environ["REWARD_SECRET"] = "SECRET"
    Path("/dev/shm/reward_shm").touch()
    yield {
        "secret": str(secret), "port": server.server_port, "pid": os.getpid(), "here": str(Path(__file__).parent),
        "abstract": f"rewards-{os.getpid()}",
    }  # fmt: skip
    Path("/dev/shm/reward_shm").unlink(missing_ok=True)
    del os.environ["REWARD_SECRET"]
    server.shutdown()
    abstract.close()
    assert secret.read_text() == "SECRET"


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, host):
    outcome = python(ATTACKS[name].format(**host))
    assert b"BREACH" not in outcome.stdout
    assert os.getpid()  # and we are still here
    assert not any(
        Path(path).exists() for path in ("/usr/owned", "/etc/owned", "/owned", "/dev/owned", "/usr/bin/owned")
    )


EXHAUSTING = {
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(2**20))",
    "memory bomb of many processes": "import os, time\nfor _ in range(30): os.fork() or (bytearray(200 * 2**20), time.sleep(99))\ntime.sleep(99)",
    "shared memory bomb": "import mmap\nx = []\nwhile True:\n  m = mmap.mmap(-1, 2**24); m.write(b'x' * 2**24); x.append(m)",
    "disk bomb": "n = 0\nwhile True:\n  open(f'/tmp/{n}', 'wb').write(b'x' * 2**20); n += 1",
    "one big file": "f = open('/tmp/f', 'wb')\nwhile True: f.write(b'x' * 2**20)",
    "shared memory files": "n = 0\nwhile True:\n  open(f'/dev/shm/{n}', 'wb').write(b'x' * 2**20); n += 1",
    "many empty files": "n = 0\nwhile True:\n  open(f'/tmp/{n}', 'wb').close(); n += 1",
    "endless output": "while True: print('x' * 10_000)",
    "endless errors": "import sys\nwhile True: sys.stderr.write('x' * 10_000)",
    "endless loop": "while True: pass",
    "sleeping past the limit": "import time; time.sleep(600)",
    "ignoring signals": "import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: time.sleep(1)",
    "closing its output": "import os, time\nos.close(1); os.close(2); time.sleep(600)",
    "a daemon left behind": "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(600)",
    "a daemon holding the output": "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(600)\nprint('done')",
}  # fmt: skip


@pytest.mark.parametrize("name", EXHAUSTING)
def test_exhaustion(name):
    """Ends in its time, what it wrote is bounded, and nothing of it is left."""
    before = set(sandboxed())
    start = time.monotonic()
    outcome = python(EXHAUSTING[name])
    assert time.monotonic() - start < 4 * LIMITS.seconds + 30
    assert len(outcome.stdout) <= LIMITS.output_bytes
    assert len(outcome.stderr) <= LIMITS.output_bytes
    assert "daemon" in name or outcome.code != 0
    end = time.monotonic() + 30
    while (left := set(sandboxed()) - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def sandboxed():
    """Processes of this machine whose command is bubblewrap's or a sandbox's program."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/box/main\0" in command or command.startswith(b"bwrap\0"):
                yield entry.name


def test_the_parent_may_be_killed():
    """A program whose judge dies, dies."""
    import signal
    import subprocess
    import sys

    code = "from openr1_repro.rewards import sandbox as s\ns.run(['sleep', '600'], {}, b'', s.Limits(100))"
    judge = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "workflow")}
    )
    end = time.monotonic() + 60
    while (
        not (sleeping := [p for p in sandboxed() if b"sleep" in Path(f"/proc/{p}/cmdline").read_bytes()])
        and time.monotonic() < end
    ):
        time.sleep(0.1)
    assert sleeping
    judge.send_signal(signal.SIGKILL)
    judge.wait()
    while any(Path(f"/proc/{p}").exists() for p in sleeping) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{p}").exists() for p in sleeping)


def test_input_of_megabytes():
    outcome = python("import sys; print(len(sys.stdin.buffer.read()))", b"x" * 8_000_000, SLOW)
    assert outcome.stdout == b"8000000\n"
    assert python("print(1)", b"x" * 8_000_000, SLOW).stdout == b"1\n"  # one that does not read it
