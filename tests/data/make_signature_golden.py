#!/usr/bin/env python3
"""Makes signature.golden: keys and signatures that openssl made, over a domain, a NUL and a message.

A line is a row of tests/unit/storage/signature_test.c: curve, point, signature (r, s), in hex.
"""
import os
import re
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SIGNED = b"kotobako model manifest 1\0" + bytes(range(200))
CURVES = [(1, "prime256v1", "sha256", 32), (1, "prime256v1", "sha256", 32), (2, "secp384r1", "sha384", 48)]


def openssl(*args, data=b""):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, check=True).stdout


def numbers(der, size):
    """r and s of a DER signature, as openssl's own parser shows them."""
    text = openssl("asn1parse", "-inform", "DER", data=der).decode()
    return b"".join(int(n, 16).to_bytes(size, "big") for n in re.findall(r"INTEGER\s*:([0-9A-F]+)", text))


def main():
    rows = []
    for curve, name, digest, size in CURVES:
        with tempfile.TemporaryDirectory() as d:
            key = os.path.join(d, "key.pem")
            openssl("ecparam", "-name", name, "-genkey", "-noout", "-out", key)
            point = openssl("ec", "-in", key, "-pubout", "-outform", "DER", "-conv_form", "uncompressed")[-2 * size - 1:]
            der = openssl("dgst", f"-{digest}", "-sign", key, data=SIGNED)
            rows.append(f'\t{{{curve}, "{point.hex()}",\n\t\t"{numbers(der, size).hex()}"}},\n')
    with open(os.path.join(HERE, "signature.golden"), "w", encoding="ascii") as f:
        f.writelines(rows)


main()
