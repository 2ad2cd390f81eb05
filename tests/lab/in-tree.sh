#!/bin/sh
# Run in a mount namespace of its own: runs a program of the Debian tree, which stays as it is, on files of one folder.
# usage: in-tree.sh TREE FOLDER PROGRAM ARGUMENT...   (FOLDER is /mnt for the program)
set -eu
tree=$1 folder=$2
shift 2
mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree"
mount --bind "$folder" "$tree/mnt"
mount -t proc proc "$tree/proc"
exec chroot "$tree" "$@"
