"""A fleet's keys, chain and signed images for tests, made by the command line (image_test.py checks that against openssl)."""
import json
import os
import pathlib
import subprocess

from tiny_gguf import gguf

CLI = str(pathlib.Path(os.environ.get("KB_CLI", "build/release/kotobako")).resolve())
TMP = pathlib.Path(os.environ["KB_TMP"])
STATE = TMP / "state"
ENV = {**os.environ, "KB_STATE": str(STATE), "KB_TTY": "", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1795651200",
       "XDG_CONFIG_HOME": str(TMP / "config")}
count = failed = 0


def check(what, ok, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}" + ("" if ok else f"  # {str(detail)[:600]!r}"), flush=True)
    return ok


def skip(why):
    global count
    count += 1
    print(f"ok {count} # SKIP {why}", flush=True)


def done():
    print(f"1..{count}")
    raise SystemExit(failed > 0)


def cli(*args, data=None, state=STATE, **env):
    r = subprocess.run([CLI, *map(str, args)], input=data, capture_output=True, env={**ENV, "KB_STATE": str(state), **env},
                       timeout=300)
    r.out, r.err = r.stdout.decode(), r.stderr.decode()
    return r


def good(*args, **more):
    r = cli(*args, **more)
    if r.returncode:
        print(f"Bail out! {args}: {r.err}", flush=True)
        raise SystemExit(1)
    return r.out


class Fleet:
    """Keys root-a, root-b (two of two), model, spare (one of two) and list (of catalogs) in a directory of their own, and their chain."""

    def __init__(self, name="fleet", fleet="offices", system=()):
        """system: keys that sign systems; else nobody may."""
        self.dir, self.fleet, self.system = TMP / name, fleet, system
        self.chain = self.dir / "chain"
        self.dir.mkdir()
        for key in ("root-a", "root-b", "model", "spare", "next", "list", *system):
            good("key", "new", self.dir / key)
        self.root()

    def id(self, key):
        return good("key", "show", self.dir / key).split()[1]

    def root(self, model=("model", "spare"), threshold=1, signers=("root-a", "root-b"), chain=None, lister="list",
             **changes):
        spec = {"fleet": self.fleet, "keys": {k: f"{k}.pub" for k in {"root-a": 0, "root-b": 0, **dict.fromkeys(model), lister: 0, **dict.fromkeys(self.system)}},
                "roles": {"root": {"threshold": 2, "keys": ["root-a", "root-b"]},
                          "model": {"threshold": threshold, "keys": list(model)},
                          "catalog": {"threshold": 1, "keys": [lister]}}, **changes}
        if self.system:
            spec["roles"]["os"] = {"threshold": 1, "keys": list(self.system)}
        (self.dir / "spec.json").write_text(json.dumps(spec))
        good("root", "build", self.dir / "spec.json", chain or self.chain)
        for key in signers:
            good("root", "sign", chain or self.chain, "--key", self.dir / key)

    def model(self, name, seed=0, **more):
        """An imported model file, unsigned."""
        file = self.dir / f"{name}-{seed}-{len(repr(more))}.model.kbm"
        if not file.exists():
            (self.dir / "x.gguf").write_bytes(gguf(seed, **more))
            good("import", self.dir / "x.gguf", "--out", file)
        return file

    def image(self, name="m", version=1, seed=None, key="model", chain=None, args=(), file=None, **more):
        out = self.dir / f"{name}-{version}-{len(list(self.dir.glob('*.kbm')))}.kbm"
        seed = version if seed is None else seed
        good("image", "build", file or self.model(name, seed, **more), out, "--model", name, "--version", version, "--roots",
             chain or self.chain, *args)
        for k in [key] if isinstance(key, str) else key:
            good("image", "sign", out, "--key", self.dir / k)
        return out

    def catalog(self, version, *images, key="list", out=None, chain=None):
        out = out or self.dir / f"catalog-{version}-{len(list(self.dir.glob('catalog*')))}"
        good("catalog", "build", out, *images, "--roots", chain or self.chain, "--version", version)
        if key:
            good("catalog", "sign", out, "--key", self.dir / key)
        return out
