#!/usr/bin/env python3
"""Keys that never leave where they are: images and roots are signed by a PKCS#11 token (SoftHSM, through openssl's pkcs11
provider) and by a key that a TPM holds (swtpm, through its tpm2 provider), in two steps, as docs/cli.md says. Prints TAP."""
import os
import subprocess

import fleet
from fleet import TMP, Fleet, check, cli, good
from tpm_test import Tpm

PIN = "1234"


class Token:
    """A token with one key pair, openssl's configuration to reach it."""

    def __init__(self, label, curve):
        self.dir = TMP / f"token-{label}"
        (self.dir / "tokens").mkdir(parents=True)
        (self.dir / "softhsm2.conf").write_text(f"directories.tokendir = {self.dir}/tokens\nobjectstore.backend = file\n")
        (self.dir / "openssl.cnf").write_text(
            "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ndefault = default_sect\npkcs11 = pkcs11_sect\n"
            "[default_sect]\nactivate = 1\n[pkcs11_sect]\nmodule = pkcs11.so\nactivate = 1\n"
            "pkcs11-module-path = /usr/lib/softhsm/libsofthsm2.so\npkcs11-module-quirks = no-deinit no-operation-state\n")
        self.env = {**os.environ, "SOFTHSM2_CONF": str(self.dir / "softhsm2.conf"), "OPENSSL_CONF": str(self.dir / "openssl.cnf")}
        self.uri, self.digest = f"pkcs11:token={label};object=release", "sha384" if "384" in curve else "sha256"
        self.run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "5678")
        # Made elsewhere and taken in: what a token that makes its own key shows of it is the same.
        key = self.dir / "once.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"group:{curve}", "-out", key], check=True)
        self.run("softhsm2-util", "--import", key, "--token", label, "--label", "release", "--id", "01", "--pin", PIN)
        key.unlink()

    def run(self, *words):
        subprocess.run([str(w) for w in words], env=self.env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)

    def public(self, to):
        self.run("openssl", "pkey", "-in", f"{self.uri};type=public?pin-value={PIN}", "-pubin", "-pubout", "-out", to)

    def sign(self, what, to):
        self.run("openssl", "dgst", f"-{self.digest}", "-sign", f"{self.uri};type=private?pin-value={PIN}", "-out", to, what)


class TpmKey:
    """A key that only this TPM can use; the file holds it wrapped."""

    def __init__(self):
        self.tpm, self.file = Tpm("tpm-of-keys"), TMP / "tpm-key.pem"
        self.env = {**os.environ, "TPM2OPENSSL_TCTI": self.tpm.tcti}
        self.run("genpkey", "-provider", "tpm2", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-out", self.file)

    def run(self, *words):
        subprocess.run(["openssl", *map(str, words)], env=self.env, check=True, stdin=subprocess.DEVNULL, timeout=60)

    def public(self, to):
        self.run("pkey", "-provider", "tpm2", "-provider", "base", "-in", self.file, "-pubout", "-out", to)

    def sign(self, what, to):
        self.run("dgst", "-sha256", "-provider", "tpm2", "-provider", "default", "-sign", self.file, "-out", to, what)


def sign(kind, file, key, public):
    """The two steps around the token's own."""
    tosign, der = TMP / "tosign", TMP / "der"
    good(kind, "sign", file, "--export", tosign)
    key.sign(tosign, der)
    return cli(kind, "sign", file, "--import", der, "--public", public)


def main():
    f = Fleet()
    keys = {"token": Token("models", "P-256"), "vault": Token("roots", "P-384"), "tpm": TpmKey()}
    for name, key in keys.items():
        key.public(f.dir / f"{name}.pub")
    shown = [good("key", "show", f.dir / f"{name}.pub") for name in keys]
    check("their public keys are read", "P-256" in shown[0] and "P-384" in shown[1] and "P-256" in shown[2], shown)
    # A root that gives models to the token and the TPM, two of two, and is itself signed by a token.
    spec = f.dir / "spec.json"
    spec.write_text('{"fleet": "offices", "keys": {"root": "vault.pub", "token": "token.pub", "tpm": "tpm.pub"}, "roles": {"root": '
                    '{"threshold": 1, "keys": ["root"]}, "model": {"threshold": 2, "keys": ["token", "tpm"]}}}')
    chain = f.dir / "token-chain"
    good("root", "build", spec, chain)
    r = sign("root", chain, keys["vault"], f.dir / "vault.pub")
    check("a root is signed by a P-384 key in a PKCS#11 token", r.returncode == 0 and "complete" in r.out, r.err)
    good("root", "trust", chain)
    image = f.image("m", 1, key=(), chain=chain)
    r = sign("image", image, keys["token"], f.dir / "token.pub")
    check("an image by a P-256 key in one", r.returncode == 0 and "not yet" in r.out, (r.out, r.err))
    r = cli("model", "install", image)
    check("...is one signature of two", r.returncode == 1 and "1 of" in r.err, r.err)
    r = sign("image", image, keys["tpm"], f.dir / "tpm.pub")
    check("and by a key that a TPM holds", r.returncode == 0 and "complete" in r.out, (r.out, r.err))
    check("then a box installs it", "m version 1 is installed" in good("model", "install", image))
    r = sign("image", f.image("m", 2, key=(), chain=chain), keys["tpm"], f.dir / "token.pub")
    check("a signature that is not that key's is not taken", r.returncode == 1, r.out)
    keys["tpm"].tpm.close()
    fleet.done()


main()
