#!/bin/sh
# rootless.sh PLACE COMMAND...: run COMMAND as a user made up for it, with subordinate ids, home PLACE/home.
# Called as root, in a mount namespace of its own (unshare --mount): nothing of this host changes.
set -eu
place=$1
shift
chmod 711 "$place"
mkdir -p "$place/home"
chown 61234:61234 "$place/home"
{ cat /etc/passwd; echo "builder:x:61234:61234::$place/home:/bin/sh"; } >"$place/passwd"
{ cat /etc/group; echo 'builder:x:61234:'; } >"$place/group"
echo 'builder:300000:65536' >"$place/subid"
chmod 644 "$place/passwd" "$place/group" "$place/subid"
for file in passwd group; do
    mount --bind "$place/$file" "/etc/$file"
done
for file in subuid subgid; do
    [ -e "/etc/$file" ] || : >"/etc/$file"
    mount --bind "$place/subid" "/etc/$file"
done
cd /
HOME=$place/home exec setpriv --reuid 61234 --regid 61234 --clear-groups "$@"
