#!/bin/sh
# The image of the commit before this one, in build/previous, with our keys: what a box in use runs when this commit's
# update comes (previous_update.py). Needs build/image/keys (image/make_image.sh). Where the history ends there is no such commit:
# that is said, and status 3.
set -eu
cd "$(dirname "$0")/../.."
top=$(pwd -P)
board=${1:-qemu-x86_64}
before=$(git rev-parse --verify --quiet HEAD^) || { echo "previous: this checkout has no commit before HEAD (a shallow clone?)" >&2; exit 3; }
old=build/previous
[ -d $old/.git ] || { rm -rf $old; git clone --quiet --no-checkout "$top" $old; }
git -C $old fetch --quiet origin
git -C $old checkout --quiet --force "$before"
same() { git diff --quiet HEAD^ HEAD -- "$1"; }
# The roots of the build are ours where their lists are: another list makes another root, in its own place.
if same image/buildroot.list; then KB_BUILDROOT=$top/build/root; export KB_BUILDROOT; fi
if same image/image_tools.list; then KB_IMAGEROOT=$top/build/imageroot; export KB_IMAGEROOT; fi
mkdir -p $old/build/image
rm -rf $old/build/image/keys
cp -a build/image/keys $old/build/image/keys
if same image/osroot.list && [ ! -d $old/build/image/packages ]; then
	cp -a build/image/packages build/image/packages.list $old/build/image/
fi
cd $old
echo "previous: building $(git log -1 --format='%h %s')" >&2
make --no-print-directory release >build/make.log 2>&1 || { tail -20 build/make.log >&2; exit 1; }
KB_TOOLS=image image/buildroot.sh exec env OS_VERSION=1 image/make_image.sh "$board"
