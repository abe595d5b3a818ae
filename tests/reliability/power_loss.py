"""A small model of what a power cut may leave on a disk, after ALICE and CrashMonkey (USENIX HotStorage 2017).

`recorded` notes the operations of a save. `Disk.after_a_cut` makes one folder that the disk may hold afterwards: what was
written to a file and not synced is there whole, cut or not at all; what was done to a folder and not synced is there or not,
each change by itself, in any order.
"""

import os
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


class Disk:
    """What is durable below `root`: every operation recorded so far, taken as synced."""

    def __init__(self, root):
        self.root = root
        self.names = {}  # path below root -> content, None for a folder

    def settle(self, operations):
        """Take all of these as having reached the disk."""
        volatile = dict(self.names)
        for operation in operations:
            apply(volatile, operation)
        self.names = volatile

    def after_a_cut(self, operations, generator, target):
        """Write to `target` one state that the disk may be in when power fails after these operations."""
        names, pending, unsynced, written = dict(self.names), {}, {}, {}
        for kind, *what in operations:  # `pending`: changes of names by folder; `unsynced`: contents by file
            if kind == "write":
                path, content = what
                unsynced[path] = content
                written.setdefault(path, content)
                pending.setdefault(path.parent, []).append(("create", path))
            elif kind == "fsync":
                written[what[0]] = unsynced.pop(what[0], written.get(what[0]))
            elif kind == "fsync_folder":
                for change in pending.pop(what[0], []):
                    commit(names, change, written, unsynced, generator)
            else:
                pending.setdefault(what[-1].parent, []).append((kind, *what))
                if kind == "rename":  # the content goes with the name
                    for contents in (unsynced, written):
                        if what[0] in contents:
                            contents[what[1]] = contents.pop(what[0])
        for changes in pending.values():
            for change in changes:
                if generator.random() < 0.5:
                    commit(names, change, written, unsynced, generator)
        target.mkdir()
        for path, content in sorted(names.items()):
            place = target / path
            if content is None:
                place.mkdir(exist_ok=True)
            elif place.parent.is_dir():  # else the folder itself was lost
                place.write_bytes(content)


def apply(names, operation):
    """One operation as the running system sees it."""
    kind, *what = operation
    if kind == "write":
        names[what[0]] = what[1]
    elif kind == "rename":
        names[what[1]] = names.pop(what[0])
    elif kind == "unlink":
        names.pop(what[0], None)
    elif kind == "mkdir":
        names[what[0]] = None


def commit(names, change, written, unsynced, generator):
    """Let one change of a folder reach the disk, with what the file's content is worth there."""
    kind, *what = change
    if kind == "mkdir":
        names[what[0]] = None
    elif kind == "unlink":
        names.pop(what[0], None)
    else:
        path = what[-1]
        if kind == "rename":
            names.pop(what[0], None)
        content = unsynced.get(path, written.get(path))
        if content is None:
            return
        if path in unsynced:
            content = content[: generator.choice([0, generator.randrange(len(content) + 1), len(content)])]
        names[path] = content


@contextmanager
def recorded(disk):
    """The operations below the disk's root while inside."""
    operations, seen = [], {}
    fsync, replace, unlink, mkdir = os.fsync, os.replace, os.unlink, os.mkdir

    def below(path):
        path = Path(os.path.abspath(os.fspath(path)))
        return path.relative_to(disk.root) if path.is_relative_to(disk.root) else None

    def look(path):
        """Note what a file holds, if that is news: writing itself goes past us."""
        content = (disk.root / path).read_bytes()
        if seen.get(path) != content:
            seen[path] = content
            operations.append(("write", path, content))

    def note_fsync(descriptor):
        path = below(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)
        if path is not None and (disk.root / path).is_dir():
            operations.append(("fsync_folder", path))
        elif path is not None:
            look(path)
            operations.append(("fsync", path))

    def note_replace(source, target, **options):
        look(below(source))
        replace(source, target, **options)
        operations.append(("rename", below(source), below(target)))
        seen[below(target)] = seen.pop(below(source))

    def note_unlink(path, **options):
        unlink(path, **options)
        operations.append(("unlink", below(path)))

    def note_mkdir(path, *mode, **options):
        mkdir(path, *mode, **options)
        operations.append(("mkdir", below(path)))

    with (
        mock.patch("os.fsync", note_fsync),
        mock.patch("os.replace", note_replace),
        mock.patch("os.rename", note_replace),
        mock.patch("os.unlink", note_unlink),
        mock.patch("os.mkdir", note_mkdir),
    ):
        yield operations
