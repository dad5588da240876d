"""What the benchmarks leave behind: build/bench.json, a list of {model, test, ours, peer, peer_value, ratio, spread,
device}, and build/bench-curves.json with what the plots are drawn from. Each program replaces its own and leaves the
other's as it is."""
import json
import os
import statistics
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROWS = os.path.join(TOP, "build/bench.json")
CURVES = os.path.join(TOP, "build/bench-curves.json")


def load(path, default):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError):
        return default


def save(path, what):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(what, f, indent=1)
        f.write("\n")


def merge_rows(rows, path=ROWS):
    """Rows of the same model, test and peer are replaced."""
    new = {(r["model"], r["test"], r["peer"]) for r in rows}
    save(path, [r for r in load(path, []) if (r["model"], r["test"], r["peer"]) not in new] + rows)


def merge_curves(curves, path=CURVES):
    save(path, {**load(path, {}), **curves})


def row(model, test, ours, peer, theirs, device, unit="", target=None):
    """A row of paired values: ours[i] and theirs[i] were measured in the same round. ratio is ours / peer; spread is
    the least and the most of it. target: the ratio asked for, "at_least" or "at_most" a number."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    out = {"model": model, "test": test, "ours": statistics.median(ours), "peer": peer,
           "peer_value": statistics.median(theirs), "ratio": statistics.median(ratios),
           "spread": [min(ratios), max(ratios)], "device": device, "unit": unit, "rounds": len(ratios)}
    if target:
        out["target"] = list(target)
    return out


def meets(r):
    """Whether a row reaches its target; None where it has none."""
    if "target" not in r:
        return None
    kind, value = r["target"]
    return r["ratio"] >= value if kind == "at_least" else r["ratio"] <= value


def machine():
    """Where it was measured, as one would describe it to someone else."""
    cpu, memory = "unknown processor", 0
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="utf-8") as f:
        memory = int(f.readline().split()[1]) // 1024
    return {"cpu": cpu, "processors": os.cpu_count(), "memory_mib": memory, "load_before": os.getloadavg()[0]}


def percentile(values, p):
    v = sorted(values)
    return v[min(len(v) - 1, int(p / 100 * len(v)))]


# --- what else the processors do ----------------------------------------------------------

QUIET = 0.05  # of the processors; others that take more disturb a measurement
TICK = os.sysconf("SC_CLK_TCK")


def _busy():
    """Seconds that all processors have worked for anyone here or were taken by the hypervisor."""
    with open("/proc/stat", encoding="utf-8") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return (sum(v[:8]) - v[3] - v[4]) / TICK


def _used_by(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                v = f.read().rsplit(")", 1)[1].split()
            total += int(v[11]) + int(v[12])
        except OSError:
            pass
    return total / TICK


class Watch:
    """The share of the processors (0 to 1) that others used between its making and others(). pids: whom to call ours;
    this process is."""

    def __init__(self, pids):
        self.pids = [*pids, os.getpid()]
        self.time, self.busy, self.used = time.monotonic(), _busy(), _used_by(self.pids)

    def others(self):
        seconds = max(time.monotonic() - self.time, 0.01)
        spent = (_busy() - self.busy) - (_used_by(self.pids) - self.used)
        return max(0.0, spent / seconds / os.cpu_count())


def wait_for_quiet(pids, seconds=20.0):
    """Waits until others leave the processors alone for a moment, seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        w = Watch(pids)
        time.sleep(0.4)
        if w.others() <= QUIET:
            return
