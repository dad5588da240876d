#!/usr/bin/env python3
# The bill of materials: every file of the built root has its row with its very bytes, every package its version and its
# licence's text, in the document and in the image; a reader that others wrote finds nothing wrong with it.
import hashlib
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import OUT, TMP, check, finish  # noqa: E402

SBOM = OUT / "sbom.spdx.json"


def main():
    document = json.loads(SBOM.read_text())
    rows = {f["fileName"]: {c["algorithm"]: c["checksumValue"] for c in f["checksums"]} for f in document["files"]}
    root = TMP / "root"
    subprocess.run(["fsck.erofs", f"--extract={root}", OUT / "root.img"], check=True, capture_output=True)
    files = [pathlib.Path(d) / n for d, _, names in os.walk(root) for n in names]
    plain = {f"./root/{f.relative_to(root)}": f for f in files if not f.is_symlink()}
    missing = [n for n in plain if n not in rows]
    check(f"each of the root's {len(plain)} files has a row", plain and not missing, missing)
    wrong = [n for n, f in plain.items() if hashlib.sha256(f.read_bytes()).hexdigest() != rows.get(n, {}).get("SHA256")]
    check("...with its bytes", not wrong, wrong)
    extra = [n for n in rows if n.startswith("./root/") and n not in plain]
    check("there is no row for a file that is not there", not extra, extra)
    check("the kernel, the initrd's files, the loader and the stub are there too", {"./initrd/init", "./esp/systemd-bootx64.efi",
          "./esp/linuxx64.efi.stub"} <= set(rows) and any(n.startswith("./esp/vmlinuz") for n in rows))
    packages = {p["name"]: p for p in document["packages"]}
    check("packages have versions", all(p["versionInfo"] for p in packages.values()) and "linux" in str(list(packages)), packages)
    texts = {x["licenseId"]: x["extractedText"] for x in document["hasExtractedLicensingInfos"]}
    bare = [n for n, p in packages.items() if n != "kotobako" and len(texts.get(p["licenseDeclared"], "")) < 100]
    check("every package of Debian's has its licence's text", not bare, bare)
    absent = [n for n in packages if n != "kotobako" and not (root / "usr/share/doc" / n / "copyright").exists()]
    check("...and the image carries it", not absent and (root / "usr/share/doc/kotobako/LICENSE").exists(), absent)
    judge = ["build/venv/spdx/bin/pyspdxtools", "-i"]
    r = subprocess.run([*judge, SBOM], capture_output=True, text=True)
    check("spdx-tools finds nothing wrong with it", r.returncode == 0, r.stdout + r.stderr)
    document["packages"][0].pop("downloadLocation")
    (TMP / "bad.spdx.json").write_text(json.dumps(document))
    r = subprocess.run([*judge, TMP / "bad.spdx.json"], capture_output=True, text=True)
    check("...and would find something", r.returncode != 0)
    finish()


main()
