#!/bin/sh
# otherday.sh NAME: build the base image NAME, and switch the machine off, come what may. It is the init of otherday.py's
# machine, whose one disk is Debian's root, and whose other one, at /srv, has Construir and room for all that a build makes.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/srv/program PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
ln -s /proc/self/fd /dev/fd
mkdir /srv/tmp
mount --bind /srv/tmp /var/tmp

# The addresses are those of QEMU's user-mode network (its manual, "Using the user mode network stack").
modprobe --all virtio_pci virtio_net
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip address add 10.0.2.15/24 dev eth0
busybox ip route add default via 10.0.2.2
echo nameserver 10.0.2.3 >/etc/resolv.conf
echo 127.0.0.1 localhost >/run/hosts

date
python3 -m construir_ftp image build "$1" --images=/srv/images
umount /var/tmp
mount -o remount,ro /srv
busybox poweroff -f
