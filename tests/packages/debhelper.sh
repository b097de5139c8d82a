#!/bin/sh -e
# packages: build-essential debhelper lintian
mkdir -p aa-1/debian/source && cd aa-1
echo '3.0 (native)' >debian/source/format
printf 'aa (1) unstable; urgency=low\n\n  * A.\n\n -- A <a@b.c>  Thu, 01 Jan 2026 00:00:00 +0000\n' >debian/changelog
cat >debian/control <<'END'
Source: aa
Section: misc
Priority: optional
Maintainer: A <a@b.c>
Build-Depends: debhelper-compat (= 13)
Standards-Version: 4.6.2

Package: aa
Architecture: all
Depends: ${misc:Depends}
Description: a
 a.
END
printf '#!/usr/bin/make -f\n%%:\n\tdh $@\n' >debian/rules && chmod +x debian/rules
dpkg-buildpackage -us -uc -b
lintian ../aa_1_all.deb | grep no-copyright-file
