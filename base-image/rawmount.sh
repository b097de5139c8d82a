#!/bin/sh
# rawmount.sh IMAGE DIRECTORY: show what is in a raw disk image: each partition n at DIRECTORY/n, the only file system of an
# image without partitions at DIRECTORY/0.  rawmount.sh -u DIRECTORY: undo that; DIRECTORY goes unless it was there before.
#
# Root gets them mounted, by loop devices, to read and write. That trusts the image: the kernel reads its file systems.
# Everybody else gets copies, to read: ext2, 3 and 4 by `construir unpack`, whose own reader needs neither mount, FUSE nor a
# set-user-ID helper, works in any container, and follows no name out of the directory; FAT by mtools. A copy's files
# belong to whoever made it, and what is changed in it does not come into the image.
# RAWMOUNT=copy makes root do as everybody else; so does a kernel that lacks the file system.
set -eu

usage() { printf 'usage: %s IMAGE DIRECTORY | %s -u DIRECTORY\n' "$0" "$0" >&2; exit 2; }
fail() { printf 'rawmount.sh: %s\n' "$*" >&2; exit 1; }
mounts() { [ "$(id -u)" = 0 ] && [ "${RAWMOUNT:-}" != copy ]; }

# "NUMBER START SIZE" of each partition, in bytes; of an image without any, itself, as number 0.
partitions() {
    if table=$(partx --raw --noheadings --bytes --output NR,START,SIZE "$1" 2>/dev/null) && [ -n "$table" ]; then
        printf '%s\n' "$table" | while read -r number start size; do
            printf '%s %s %s\n' "$number" "$((start * 512))" "$size"
        done
    else
        printf '0 0 %s\n' "$(stat --format %s "$1")"
    fi
}

# What file system begins at an offset; nothing for what is none, such as the partition that GRUB is in.
kind_at() { blkid --probe --offset "$2" --size "$3" --match-tag TYPE --output value "$1" || true; }

# A loop device for each: in containers nobody makes the nodes that `losetup --partscan` asks for.
mount_one() {
    device=$(losetup --find --show --offset "$2" --sizelimit "$3" "$1")
    status=0
    mount "$device" "$4" || status=1
    # The device is let go of now, and lives as long as it is mounted.
    losetup --detach "$device"
    return "$status"
}

copy_one() {
    case $5 in
        ext*)
            part=$(mktemp "${TMPDIR:-/var/tmp}/rawmount.XXXXXX")
            trap 'rm -f "$part"' EXIT
            dd if="$1" of="$part" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=1M conv=sparse status=none
            truncate --size "$3" "$part"
            construir unpack "$part" "$4"
            rm -f "$part"
            ;;
        vfat) mcopy -s -m -n -i "$1@@$2" '::*' "$4" ;;
    esac
}

show() {
    image=$1 place=$2
    [ -f "$image" ] || fail "$image: no such file"
    made=no
    [ -d "$place" ] || made=yes
    mkdir -p "$place"
    [ -z "$(ls -A "$place")" ] || fail "$place: not empty; choose another directory"
    echo "made=$made" >"$place/.rawmount"
    partitions "$image" | while read -r number start size; do
        kind=$(kind_at "$image" "$start" "$size")
        case $kind in ext* | vfat) ;; *) continue ;; esac
        mkdir "$place/$number"
        { mounts && mount_one "$image" "$start" "$size" "$place/$number"; } ||
            copy_one "$image" "$start" "$size" "$place/$number" "$kind"
    done
    [ -n "$(ls "$place")" ] || { hide "$place"; fail "$image: no file system in it"; }
}

hide() {
    place=$1
    # Nothing is removed that was not put there.
    [ -e "$place/.rawmount" ] || fail "$place: nothing of an image is shown there"
    for part in "$place"/*; do
        [ -e "$part" ] || continue
        if mountpoint --quiet "$part"; then
            umount "$part" && rmdir "$part"
        else
            chmod -R u+rwX "$part" && rm -rf --one-file-system "$part"
        fi
    done
    # A directory that was there before stays; one that is worked in has no other name that rmdir takes.
    made=$(cat "$place/.rawmount")
    rm -f "$place/.rawmount"
    [ "$made" != made=yes ] || rmdir "$(cd -P "$place" && pwd)"
}

case $#:${1:-} in
    2:-u) hide "$2" ;;
    2:-*) usage ;;
    2:*) show "$1" "$2" ;;
    *) usage ;;
esac
