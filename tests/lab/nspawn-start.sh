#!/bin/sh
# PID 1 of a pid and mount namespace of its own: puts itself into the container's own cgroups, mounts the writable
# layer over the tree and runs systemd-nspawn. All processes and mounts end with it: a container's PID 1 would outlive
# a killed systemd-nspawn otherwise.
# usage: nspawn-start.sh CGROUP TREE FOLDER NSPAWN-ARGUMENT...
set -eu
group=$1 tree=$2 folder=$3
shift 3
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/systemd/cgroup.procs /sys/fs/cgroup/unified/cgroup.procs; do
  [ -e "$procs" ] || continue
  mkdir -p "${procs%/*}/$group"
  echo $$ > "${procs%/*}/$group/cgroup.procs"
done
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
systemd-nspawn --directory="$folder/root" "$@"
