#!/usr/bin/env python3
# An update on a box in use: the image of the commit before (previous.sh) is set up, paired and has a model; this commit's system comes by
# stick, proves itself and stays; client, model and network are there; an administrator goes back, and the old system reads what
# the new one wrote.
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import update_test  # noqa: E402
from boot_test import first_token  # noqa: E402
from tap import BOARD, TMP, check, finish  # noqa: E402

PREVIOUS, NEXT = pathlib.Path("build/previous/build/image") / BOARD, pathlib.Path("build/image/next")


def kotobako(client, port, *words):
    return subprocess.run(["build/release/kotobako", "--client", client, "--box", f"127.0.0.1:{port}", *words],
                          capture_output=True, text=True, timeout=120)


def main():
    client = TMP / "client"
    box = update_test.test_first(client, PREVIOUS / "disk.img")
    with box.boot(update_test.stick_with(NEXT / f"system-{BOARD}-2.kbm")) as b:
        check("this commit's system is written", b.comes("system version 2 is written"), b.vm.text()[-900:])
        check("...and proves itself", b.vm.wait_line("stage proven", update_test.TRIAL_S) is not None, b.vm.text()[-900:])
        check("power off", update_test.off(b, box))
    with box.boot() as b:
        check("it starts by itself from then on", b.comes("listens on 0.0.0.0") and "root_b on" in b.vm.text() and
              "stage trial" not in b.vm.text(), b.vm.text()[-900:])
        b.comes("10.0.2.15")
        status, _, answer = first_token(client, b.port)
        check("the client and the model of before are there", status == 200 and answer, (status, answer))
        r = kotobako(client, b.port, "os", "rollback")
        check("the administrator goes back", r.returncode == 0, r.stderr)
        check("...to the system before, which proves itself", b.vm.wait_line(r"root_a on", 120) is not None and
              b.vm.wait_line("stage proven", update_test.TRIAL_S) is not None, b.vm.text()[-900:])
        b.comes("10.0.2.15")
        status, _, answer = first_token(client, b.port)
        check("it reads what the new one wrote", status == 200 and answer, (status, answer))
        check("power off", update_test.off(b, box))


if __name__ == "__main__":
    main()
    finish()
