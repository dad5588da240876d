#!/usr/bin/env python3
"""The bill of materials of an image, and the licences that must travel with it.

  image/sbom.py PACKAGES LIST ROOT INITRD OUT

PACKAGES: the packages of image/osroot.list, unpacked; LIST: what image/list_packages.sh said of them. Licence texts are put
into ROOT/usr/share/doc. OUT: SPDX 2.3 as JSON, a row for every file of ROOT and INITRD and for the loader and the stub, by
which Debian package and version it came, or that it is ours. A file that nobody knows of ends it with an error.
"""
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

OURS = "kotobako"
LOADER = "systemd-boot-efi"  # of the root of tools: loader and stub
MERGED = ("/bin/", "/sbin/", "/lib/", "/lib64/")  # names of before /usr was merged


def usr(path):
    return "/usr" + path if path.startswith(MERGED) else path


def read_list(path):
    """Packages by name, and the package of each path and of each kernel module."""
    packages, owner, module = {}, {}, {}
    for line in pathlib.Path(path).read_text().splitlines():
        kind, *rest = line.split("\t")
        if kind == "P":
            name = rest[0]
            packages[name] = dict(zip(("name", "version", "source", "source_version"), rest))
        else:
            owner[usr(rest[0])] = name
            if re.search(r"\.ko(\.xz)?$", rest[0]):
                module[os.path.basename(rest[0]).removesuffix(".xz")] = name
    return packages, owner, module


def files_of(top):
    return sorted(p for d, _, names in os.walk(top) for n in names if not (p := pathlib.Path(d) / n).is_symlink())


def our_paths():
    """What image/osroot.files takes from us, by their place in the root."""
    paths = {"/usr/lib/kotobako/modules.list", "/modules.list", "/init"}
    for line in pathlib.Path("image/osroot.files").read_text().splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in ("text", "roots"):
            paths.add(words[1])
        elif words and words[0] == "program":
            paths.add(f"/usr/bin/{words[1]}")
    return paths


class Owners:
    def __init__(self, owner, module, packages):
        self.owner, self.module, self.packages, self.ours = owner, module, packages, our_paths()

    def of(self, path, where):
        if path in self.ours or path.startswith(f"/usr/share/doc/{OURS}/"):
            return OURS
        if path.startswith("/usr/lib/modules/") and path.endswith(".ko"):
            return self.module[os.path.basename(path)]
        if path in self.owner:
            return self.owner[path]
        # A library under its short name: the file that its link in the package points to.
        target = (where / path.lstrip("/")).resolve()
        found = usr("/" + str(target.relative_to(where.resolve())))
        if found in self.owner:
            return self.owner[found]
        sys.exit(f"sbom: nobody knows where {path} is from")


def copyright_of(packages, name):
    """Debian's copyright file of a package; its folder may be a link to another's."""
    for path in (packages / "usr/share/doc" / name / "copyright", pathlib.Path("/usr/share/doc") / name / "copyright"):
        if path.exists():
            return path.read_text(errors="replace")
    sys.exit(f"sbom: {name} has no copyright file")


def put_licences(packages, root, names):
    for name in names:
        to = root / "usr/share/doc" / name
        to.mkdir(parents=True, exist_ok=True)
        (to / "copyright").write_text(copyright_of(packages, name))
    (root / "usr/share/doc" / OURS).mkdir(parents=True, exist_ok=True)
    shutil.copyfile("LICENSE", root / "usr/share/doc" / OURS / "LICENSE")


def spdx_id(text):
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)


def verification_code(sums):
    """SPDX 2.3, 7.9: of a package as it is here, which is those of its files that are in the image."""
    return hashlib.sha1("".join(sorted(sums)).encode()).hexdigest()


def package_row(p, sums):
    ours = p["name"] == OURS
    return {"SPDXID": f"SPDXRef-Package-{spdx_id(p['name'])}", "name": p["name"], "versionInfo": p["version"],
            "downloadLocation": "NOASSERTION", "filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue":
            verification_code(sums)}, "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "Apache-2.0" if ours else f"LicenseRef-{spdx_id(p['name'])}", "copyrightText": "NOASSERTION",
            **({} if ours else {"supplier": "Organization: Debian", "sourceInfo":
                f"built by Debian from {p['source']} {p['source_version']}", "externalRefs": [
                    {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                     "referenceLocator": f"pkg:deb/debian/{p['name']}@{p['version'].replace('+', '%2B').replace(':', '%3A')}?arch=amd64"}]}),
            "comment": f"{len(sums)} files of it are in the image"}


def file_row(path, name, number):
    data = path.read_bytes()
    return {"SPDXID": f"SPDXRef-File-{number}", "fileName": name, "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION",
            "checksums": [{"algorithm": "SHA1", "checksumValue": hashlib.sha1(data).hexdigest()},
                          {"algorithm": "SHA256", "checksumValue": hashlib.sha256(data).hexdigest()}]}


def loader():
    """The package that the loader and the stub are of."""
    out = subprocess.run(["dpkg-query", "-W", "-f", "${Version}\t${source:Package}\t${source:Version}", LOADER], check=True,
                         capture_output=True, text=True).stdout.split("\t")
    return {"name": LOADER, "version": out[0], "source": out[1], "source_version": out[2]}


def main(packages, listed, root, initrd, out):
    packages, root, initrd = pathlib.Path(packages), pathlib.Path(root), pathlib.Path(initrd)
    known, owner, module = read_list(listed)
    owners = Owners(owner, module, known)
    version = re.search(r'KB_VERSION "([^"]+)"', pathlib.Path("runtime/base/version.h").read_text())[1]
    known[OURS] = {"name": OURS, "version": version}
    known[LOADER] = loader()
    used = {}
    shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
    for top, where in ((root, packages), (initrd, packages)):
        for path in files_of(top):
            name = owners.of("/" + str(path.relative_to(top)), where)
            used.setdefault(name, []).append((path, f"./{top.name}/{path.relative_to(top)}"))
    efi = pathlib.Path("/usr/lib/systemd/boot/efi")
    used[LOADER] = [(efi / n, f"./esp/{n}") for n in ("systemd-bootx64.efi", "linuxx64.efi.stub")]
    kernel = next((packages / "boot").glob("vmlinuz-*"))
    used.setdefault(owner[f"/boot/{kernel.name}"], []).append((kernel, f"./esp/{kernel.name}"))
    put_licences(packages, root, [n for n in used if n != OURS])
    for path in files_of(root / "usr/share/doc"):  # they came just now
        name = path.parent.name
        used[name].append((path, f"./root/{path.relative_to(root)}"))
    files, relations, sums = [], [], {}
    for name in sorted(used):
        for path, shown in sorted(used[name], key=lambda x: x[1]):
            files.append(file_row(path, shown, len(files) + 1))
            sums.setdefault(name, []).append(files[-1]["checksums"][0]["checksumValue"])
            relations.append({"spdxElementId": f"SPDXRef-Package-{spdx_id(name)}", "relationshipType": "CONTAINS",
                              "relatedSpdxElement": files[-1]["SPDXID"]})
    rows = [package_row(known[n], sums[n]) for n in sorted(used)]
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"kotobako-image-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/kotobako-image-{version}-{digest}",
        "creationInfo": {"created": datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
                         .strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: image/sbom.py"]},
        "documentDescribes": [r["SPDXID"] for r in rows], "packages": rows, "files": files, "relationships": relations,
        "hasExtractedLicensingInfos": [{"licenseId": f"LicenseRef-{spdx_id(n)}", "name": f"Debian's copyright file of {n}",
                                        "extractedText": copyright_of(packages, n)} for n in sorted(used) if n != OURS]}
    pathlib.Path(out).write_text(json.dumps(document, indent=1) + "\n")
    print(f"image: {len(files)} files of {len(rows)} packages in {out}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
