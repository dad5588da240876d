#!/bin/sh
# A hook of mmdebstrap: which packages are about to be unpacked, and which files each has. Usage: list_packages.sh ROOT
# P NAME VERSION SOURCE SOURCE-VERSION, then F PATH for each of its files, with tabs between.
set -eu
for deb in "$1"/var/cache/apt/archives/*.deb; do
	dpkg-deb -W --showformat='P\t${Package}\t${Version}\t${source:Package}\t${source:Version}\n' "$deb"
	dpkg-deb --fsys-tarfile "$deb" | tar -tf - | sed -n 's|^\.\(/.*[^/]\)$|F\t\1|p'
done
