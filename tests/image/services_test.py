#!/usr/bin/env python3
# What the supervisor does about services that go wrong, in a system with three of them more: one that promised to say that it is well
# and falls silent, one that takes memory without end, one that starts itself without end. The box goes on meanwhile.
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import update_test  # noqa: E402
from boot_test import first_token  # noqa: E402
from system import make_system  # noqa: E402
from tap import TMP, check, finish  # noqa: E402

ROWS = """silent 100 always /usr/bin/silent
hungry 100 always memory=32 /usr/bin/silent eat
many 100 always pids=10 /usr/bin/silent fork
"""


def with_rows(tree):
    shutil.copy("build/image/silent", tree / "usr/bin/silent")
    os.chmod(tree / "usr/bin/silent", 0o755)
    path = tree / "etc/kotobako/services"
    path.write_text(path.read_text() + ROWS)


def main():
    client = TMP / "client"
    box = update_test.test_first(client)
    with box.boot(update_test.stick_with(make_system("rows", 2, root=with_rows))) as b:
        check("services that go wrong do not fail a trial", b.vm.wait_line("stage proven", update_test.TRIAL_S) is not None, b.vm.text()[-1500:])
        when = b.vm.wait_line("service silent: silent for 30 s: killed", 120)
        check("one that falls silent is killed", when is not None, b.vm.text()[-900:])
        check("...and started again", b.comes("service silent: ended by signal 9") and b.vm.wait_line(r"service silent: started as \d+", 10) and
              update_test.count(b, "service silent: started") >= 2, b.vm.text()[-900:])
        check("one that takes too much memory is ended in its group", b.comes("service hungry: ended by signal 9") and
              b.comes("Memory cgroup out of memory"), b.vm.text()[-900:])
        check("one that starts too many is stopped at its limit", b.comes(r"service many: ended with (9|10)$"), re.findall("service many.*", b.vm.text())[-3:])
        check("...and what it started ends with it, so that it can begin anew", update_test.count(b, r"service many: ended with (9|10)$") >= 2,
              re.findall("service many: ended.*", b.vm.text())[-5:])
        check("the daemon is well", "service kotobakod: silent" not in b.vm.text() and "service kotobakod: ended" not in
              b.vm.text().split("stage trial")[-1])
        b.comes("10.0.2.15")
        status, _, answer = first_token(client, b.port)
        check("and answers", status == 200 and answer, (status, answer))
        check("power off", update_test.off(b, box))


if __name__ == "__main__":
    main()
    finish()
