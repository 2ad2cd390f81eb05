#!/bin/sh
# Run in a mount namespace of its own: puts itself into the container's own cgroups, mounts the writable layer over
# the tree and becomes systemd-nspawn. Everything that is mounted here ends with the namespace.
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
exec systemd-nspawn --directory="$folder/root" "$@"
