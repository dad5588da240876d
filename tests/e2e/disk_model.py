"""What a disk may hold after a power cut, from what a program did to it (record_io.c): what was synced is there, of everything
since then any part may be missing or torn (by sectors of 512 bytes), and names change in order but at any time: no order
between files, and within one only by sync. On FAT a file that was renamed may be empty until it is synced again.
"""
import struct

SECTOR = 512
WRITE, TRUNCATE, SYNC, RENAME, UNLINK = range(1, 6)


def records(path):
    data, at = path.read_bytes(), 0
    while at < len(data):
        kind, n1, n2, sync, offset, size = struct.unpack_from("=IIIIQQ", data, at)
        at += 32
        first, second = data[at:at + n1].decode(), data[at + n1:at + n1 + n2].decode()
        at += n1 + n2
        yield kind, first, second, sync, offset, data[at:at + size]
        at += size


EVERYTHING = "*"  # the path of a SYNC of all there is


def record(kind, path, data=b""):
    first = str(path).encode()
    return struct.pack("=IIIIQQ", kind, len(first), 0, 0, 0, len(data)) + first + data


def snapshot(directory):
    """{path: bytes} of all files."""
    return {str(p): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class Disk:
    """Files by number: what is certain of each, and what came since; names: the same."""

    def __init__(self, files, fat=None, firmware=None):
        """files: {path: bytes}. fat: what lies below is FAT. firmware: what lies below are the firmware's variables, each of
        which changes as a whole and at once."""
        self.fat, self.firmware, self.may_be_empty = fat, firmware, set()
        self.certain = dict(enumerate(map(bytearray, files.values())))
        self.pending = {i: [] for i in self.certain}
        self.names = {path: i for i, path in enumerate(files)}  # as the program sees them
        self.certain_names = dict(self.names)
        self.pending_names = []

    def of(self, path):
        if path not in self.names:
            number = len(self.certain)
            self.certain[number], self.pending[number] = bytearray(), []
            self.change_name(None, path, number)
        return self.names[path]

    def change_name(self, old, new, number):
        self.pending_names.append((old, new, number))
        apply_name(self.names, old, new, number)

    def do(self, kind, first, second, sync, offset, data):
        if self.firmware and first.startswith(self.firmware):
            self.do_now(kind, first, offset, data)
            return
        if kind == WRITE and sync:
            self.do(WRITE, first, second, 0, offset, data)
            self.settle(self.of(first))
        elif kind in (WRITE, TRUNCATE):
            self.pending[self.of(first)].append((kind, offset, data))
        elif kind == SYNC and first == EVERYTHING:
            for number in self.pending:
                self.settle(number)
            self.do(SYNC, "", second, sync, offset, data)
        elif kind == SYNC and first in self.names:
            self.settle(self.names[first])
        elif kind == SYNC:  # a directory: its names, and those before them
            for change in self.pending_names:
                apply_name(self.certain_names, *change)
            self.pending_names = []
        elif kind == RENAME:
            self.change_name(first, second, self.of(first))
            if self.fat and first.startswith(self.fat):
                self.may_be_empty.add(self.of(second))
        elif kind == UNLINK and first in self.names:
            self.change_name(first, None, self.names[first])

    def do_now(self, kind, path, offset, data):
        if kind == UNLINK:
            for names in (self.names, self.certain_names):
                names.pop(path, None)
        elif kind in (WRITE, TRUNCATE):
            if path not in self.names:
                number = len(self.certain)
                self.certain[number], self.pending[number] = bytearray(), []
                self.names[path] = self.certain_names[path] = number
            apply(self.certain[self.names[path]], kind, offset, data)

    def settle(self, number):
        self.may_be_empty.discard(number)
        for op in self.pending[number]:
            apply(self.certain[number], *op)
        self.pending[number] = []

    def after_cut(self, rng):
        """{path: bytes} as it may be found."""
        names = dict(self.certain_names)
        for change in self.pending_names[:rng.randint(0, len(self.pending_names))]:
            apply_name(names, *change)
        return {path: self.content(number, rng) for path, number in names.items()}

    def content(self, number, rng):
        data, ops = bytearray(self.certain[number]), self.pending[number]
        if number in self.may_be_empty and rng.random() < 0.5:
            return bytearray()
        how = rng.choice(("none", "prefix", "some", "torn", "torn", "all"))
        for i, (kind, offset, piece) in enumerate(ops):
            if how == "none" or (how == "prefix" and i >= len(ops) // 2) or (how == "some" and rng.random() < 0.5):
                continue
            if kind == TRUNCATE or how != "torn":
                apply(data, kind, offset, piece)
                continue
            for at in range(offset - offset % SECTOR, offset + len(piece), SECTOR):
                if rng.random() < 0.7:
                    begin, end = max(at, offset), min(at + SECTOR, offset + len(piece))
                    apply(data, WRITE, begin, piece[begin - offset:end - offset])
        return data


def apply_name(names, old, new, number):
    if old:
        names.pop(old, None)
    if new:
        names[new] = number


def apply(data, kind, offset, piece):
    if kind == TRUNCATE:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset:offset + len(piece)] = piece
