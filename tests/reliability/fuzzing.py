"""Poison, in a process of its own that may not take much time or memory, run anything, or reach out of its folder.

`attack` feeds inputs to a reader and counts how it answers: `UserError` or a value. Anything else fails the test: another
exception, a crash, two seconds of computing, a gibibyte of memory, or one of the deeds that an audit hook sees.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import zipfile
from pathlib import Path

from processes import CONTEXT

SECONDS = 2  # of computing for one input
MEMORY = 1 << 30  # bytes beyond what the process began with

# Deeds of which every one is a failure while a reader reads.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
    "pickle.find_class", "ctypes.dlopen", "ctypes.call_function", "socket.connect", "socket.bind", "urllib.Request",
)  # fmt: skip
INSIDE = (
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "shutil.rmtree",
)


class Forbidden(BaseException):
    """Not an Exception, so that no reader can swallow it."""


class TooSlow(BaseException):
    pass


class Watch:
    """The audit hook; looks only while a reader reads."""

    def __init__(self, folder):
        self.folder, self.looking, self.seen = str(folder), False, []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.looking and self.is_forbidden(event, arguments):
            self.seen.append(f"{event} {arguments}"[:300])
            raise Forbidden(self.seen[-1])

    def is_forbidden(self, event, arguments):
        if event == "exec":  # what eval and exec end in, and the first import of a module, which is no deed
            return not is_module(arguments[0])
        if event == "open":
            return (
                isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+") and not self.is_inside(arguments[0])
            )
        if event in INSIDE:
            return not self.is_inside(arguments[0])
        return event in FORBIDDEN

    def is_inside(self, path):
        return isinstance(path, int) or os.path.abspath(os.fsdecode(path)).startswith(self.folder)


def is_module(code):
    """Whether this is the body of a module that lies where Python's own modules do."""
    return code.co_name == "<module>" and os.path.isfile(code.co_filename) and not code.co_filename.startswith("/tmp")


def attack(surface, examples):
    """Feed so many generated inputs to a surface of `readers.SURFACES`; {"refused": n, "read": n}, or the failure's text."""
    return in_prison(generated, surface, examples)


def attack_with(surface, files):
    """The same with the given contents by name; {name: "refused" or "read"}."""
    return in_prison(given, surface, files)


def in_prison(work, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        process = CONTEXT.Process(target=imprisoned, args=(work, folder, arguments))
        process.start()
        process.join(1800)
        alive = process.is_alive()
        if alive:
            process.kill()
            process.join()
        report = Path(folder) / "report.json"
        told = json.loads(report.read_text()) if report.is_file() else "no report"
        assert not alive, f"hangs: {told}"
        assert process.exitcode == 0, f"ended with {process.exitcode}: {told}"
        return told


def imprisoned(work, folder, arguments):
    """The life of the process: limits, then the work, then its report."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGVTALRM, too_slow)
    sys.dont_write_bytecode = True
    inside = Path(folder) / "inside"
    inside.mkdir()
    os.chdir(inside)
    code, told = 0, None
    try:
        told = work(Watch(folder), inside, *arguments)
    except BaseException:
        code, told = 1, traceback.format_exc()[-1500:]
    (Path(folder) / "report.json").write_text(json.dumps(told))
    os._exit(code)


def too_slow(*ignored):
    raise TooSlow


def tried(watch, read, content, folder):
    """How a reader answers to one input: "refused" or "read"."""
    from thumbnet.errors import UserError

    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    watch.looking = True
    try:
        read(content, folder)
        answer = "read"
    except UserError as error:
        answer = "refused" if "\n" not in str(error) else f"refused in several lines: {error}"
    finally:
        watch.looking = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert not watch.seen, watch.seen
    return answer


def warm_up(read, seeds, folder):
    """Let the reader import what it needs: importing runs code, if nobody's but the libraries' own."""
    from thumbnet.errors import UserError

    for content in seeds:
        with contextlib.suppress(UserError):
            read(content, folder)


def generated(watch, folder, surface, examples):
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    from readers import SURFACES

    read, seeds = SURFACES[surface]
    warm_up(read, seeds(), folder)
    answers = {"refused": 0, "read": 0}
    place = st.integers(0, 2**20)
    step = st.one_of(
        st.tuples(st.just("bit"), place, st.integers(0, 7)),
        st.tuples(st.just("byte"), place, st.integers(0, 255)),
        st.tuples(st.just("cut"), place, st.just(0)),
        st.tuples(st.just("drop"), place, st.integers(1, 64)),
        st.tuples(st.just("twice"), place, st.integers(1, 64)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(
            st.just("number"), place, st.sampled_from([b"-1", b"1e999", b"NaN", b"9" * 400, b"null", b"[" * 2000])
        ),
        st.tuples(st.just("large"), place, st.sampled_from([b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\x00" * 8])),
    )
    inputs = st.one_of(
        st.tuples(st.sampled_from(seeds()), st.lists(step, min_size=1, max_size=6)),
        st.tuples(st.just(b""), st.lists(step, max_size=3)),
        st.tuples(st.binary(max_size=300), st.just([])),
    )

    @seed(0)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def every(source):
        answers[tried(watch, read, mutated(*source), folder)] += 1

    every()
    return answers


def mutated(content, steps):
    """The content after every step; places wrap around."""
    content = bytearray(content)
    for kind, place, what in steps:
        at = place % (len(content) + 1)
        if kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + what]
        elif kind == "twice":
            content[at:at] = content[at : at + what]
        elif kind in ("insert", "number"):
            content[at:at] = what
        elif kind == "large":
            content[at : at + len(what)] = what
        elif at < len(content):
            content[at] = content[at] ^ 1 << what if kind == "bit" else what
    return bytes(content)


def read_seeds(surface):
    """How the surface's own valid inputs are taken; they are made in the process, for some fit what lies beside them."""
    return in_prison(seeds_of, surface)


def seeds_of(watch, folder, surface):
    from readers import SURFACES

    read, seeds = SURFACES[surface]
    contents = seeds()
    warm_up(read, contents, folder)
    return [tried(watch, read, content, folder) for content in contents]


def given(watch, folder, surface, files):
    from readers import SURFACES

    read, seeds = SURFACES[surface]
    warm_up(read, seeds(), folder)
    return {name: tried(watch, read, content, folder) for name, content in files.items()}


def archive(files, **options):
    """A zip archive of contents by name."""
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as stored:
        for name, content in files.items():
            stored.writestr(name, content)
    return buffer.getvalue()
