"""The box in QEMU: OVMF with Secure Boot (own keys), a software TPM, a watchdog, a stick, the API's port forwarded.

Software emulation unless KB_ACCEL says otherwise: /dev/kvm may be there and not work, and Secure Boot wants SMM.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CODE = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
OWNER = "4b6f746f-6261-6b6f-0000-000000000001"  # whose keys these are, in the firmware's lists
MEMORY_MB = 2048


def run(*words, **more):
    return subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True, **more).stdout


def make_vars(keys, out):
    """OVMF's variables with our PK, KEK and db and nothing of anybody else; Secure Boot on."""
    run("virt-fw-vars", "--input", VARS, "--output", out, "--set-pk", OWNER, keys / "PK.pem",
        "--add-kek", OWNER, keys / "KEK.pem", "--add-db", OWNER, keys / "db.pem", "--secure-boot")


def make_stick(path, models=(), files=()):
    """A stick as an administrator prepares one: FAT with a directory kotobako/, and signed models in kotobako/models/;
    files: further ones in kotobako/, by their path there."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as f:
        f.truncate((64 << 20) + sum(p.stat().st_size for p in [*models, *dict(files).values()]))
    run("mkfs.vfat", "-F", "32", "-n", "KOTOBAKO", path)
    run("mmd", "-i", path, "::/kotobako")
    if models:
        run("mmd", "-i", path, "::/kotobako/models")
    for model in models:
        run("mcopy", "-i", path, model, f"::/kotobako/models/{model.name}")
    for name, file in dict(files).items():
        if "/" in name:
            run("mmd", "-i", path, f"::/kotobako/{name.rpartition('/')[0]}")
        run("mcopy", "-i", path, file, f"::/kotobako/{name}")


# Asked to end, a program ends in order: the machines that it runs end with it.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


class Vm:
    """A running machine. lines: what the serial console said, each with the seconds since power-on."""

    def __init__(self, disk, variables, port, stick=None, log=None, echo=None, reboot=False, tpm=None, more=(), alone=True):
        """tpm: a directory for what its TPM remembers from boot to boot; without it there is a new TPM each time. more: further
        words for QEMU. alone=False: it may reach this machine as 10.0.2.2."""
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kb-vm-"))
        if tpm:
            pathlib.Path(tpm).mkdir(exist_ok=True)
        self.lines, self.partial, self.echo = [], b"", echo
        self.log = open(log, "wb") if log else None
        # In sessions of their own: Ctrl-C is for whoever started them, who presses the power button.
        self.tpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tpm or self.dir}",
                                     "--ctrl", f"type=unixio,path={self.dir}/tpm", "--flags", "startup-clear"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.wait_path(self.dir / "tpm")
        self.began = time.monotonic()
        self.qemu = subprocess.Popen([*self.command(disk, variables, port, stick, reboot, alone), *more], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    @staticmethod
    def wait_path(path, seconds=10):
        end = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > end:
                raise RuntimeError(f"{path} does not appear")
            time.sleep(0.02)

    def command(self, disk, variables, port, stick, reboot, alone):
        words = ["qemu-system-x86_64", "-machine", "q35,smm=on", "-accel", os.environ.get("KB_ACCEL", "tcg,thread=multi"),
                 "-cpu", "max", "-m", str(MEMORY_MB), "-smp", "2", "-nodefaults", "-display", "none",
                 "-global", "driver=cfi.pflash01,property=secure,value=on",
                 "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={CODE}",
                 "-drive", f"if=pflash,format=raw,unit=1,file={variables}",
                 "-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=disk",
                 "-netdev", f"user,id=net,restrict={'on' if alone else 'off'},hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8443",
                 "-device", "virtio-net-pci,netdev=net,romfile=",
                 "-chardev", f"socket,id=tpm,path={self.dir}/tpm", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
                 "-device", "tpm-crb,tpmdev=tpm0", "-device", "i6300esb", "-device", "virtio-rng-pci",
                 "-device", "qemu-xhci,id=usb", "-serial", "stdio", "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off"]
        if stick:
            words += ["-drive", f"if=none,id=stick,format=raw,file={stick}", "-device", "usb-storage,drive=stick,bus=usb.0"]
        return words if reboot else [*words, "-no-reboot"]

    def read(self):
        while data := os.read(self.qemu.stdout.fileno(), 4096):
            if self.log:
                self.log.write(data)
                self.log.flush()
            *whole, self.partial = (self.partial + data).split(b"\n")
            with self.changed:
                for line in whole:
                    text = re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]", "", line.decode(errors="replace")).strip()
                    self.lines.append((time.monotonic() - self.began, text))
                    if self.echo:
                        self.echo(*self.lines[-1])
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def text(self):
        return "\n".join(line for _, line in self.lines) + "\n" + self.partial.decode(errors="replace")

    def wait_line(self, pattern, seconds):
        """The seconds since power-on at which a line that matches came, or None: not in time, or the machine ended."""
        end = time.monotonic() + seconds
        at = 0
        with self.changed:
            while True:
                for when, line in self.lines[at:]:
                    if re.search(pattern, line):
                        return when
                at = len(self.lines)
                left = end - time.monotonic()
                if left <= 0 or not self.reader.is_alive():
                    return None
                self.changed.wait(min(left, 1))

    def qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.dir / "qmp"))
            f = s.makefile("rw")
            f.readline()
            for c, given in (("qmp_capabilities", {}), (command, arguments)):
                f.write(json.dumps({"execute": c, "arguments": given}) + "\n")
                f.flush()
                while "return" not in (reply := json.loads(f.readline())):
                    if "error" in reply:
                        raise RuntimeError(str(reply))

    def screen(self, out):
        """What a screen shows (the machine needs one: more=("-device", "VGA")): its width, height and grey values."""
        self.qmp("screendump", filename=str(out))
        kind, size, _, data = pathlib.Path(out).read_bytes().split(b"\n", 3)
        width, height = map(int, size.split())
        assert kind == b"P6" and len(data) == 3 * width * height
        return width, height, data[1::3]

    def human(self, line):
        """A command of QEMU's monitor."""
        self.qmp("human-monitor-command", **{"command-line": line})

    def power_button(self):
        self.qmp("system_powerdown")

    def wait_off(self, seconds):
        """QEMU's exit status, or None: it still runs."""
        try:
            return self.qemu.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self):
        for p in (self.qemu, self.tpm):
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        self.reader.join(5)
        shutil.rmtree(self.dir, ignore_errors=True)
