#!/bin/sh
# PID 1 of the guest's own small initrd: loads the modules which the root disk needs and hands over to systemd.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done
mount -t ext4 -o rw,noatime /dev/vda /root || busybox poweroff -f
for each in dev sys proc; do mount --move /$each /root/$each; done
exec switch_root /root /lib/systemd/systemd
