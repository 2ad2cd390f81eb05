#!/bin/sh
# Run in a mount namespace of its own: writes the tree, with the guest's own files over it, into an ext4 image.
# usage: guest-disk.sh FILES TREE WORK IMAGE SIZE
set -eu
files=$1 tree=$2 work=$3 image=$4 size=$5
mkdir -p "$work"
mount -t overlay overlay -o "ro,lowerdir=$files:$tree" "$work"
truncate -s "$size" "$image"
mke2fs -q -t ext4 -L root -J size=16 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard -d "$work" "$image"
