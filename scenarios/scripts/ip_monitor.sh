#!/bin/sh
# iov: about = The loop of the report from December 2023: whoever reads sriov_numvfs at a link event must read the new value.
# iov: detects = numvfs-stale-vf-netlink, numvfs-stale-pf-netlink
# iov: kernel-args = preempt=full
NUMVFS=$(iov pf --sysfs)/sriov_numvfs
IF=$(iov pf --interface)
iov watch link --until "$IF up" -- ip link set $IF up
sleep 2
ip monitor link | while read line; do echo "$(cat $NUMVFS) $line"; done > /tmp/read &
sleep 1
echo 4 > $NUMVFS
sleep 2
cat /tmp/read
! grep '^0 .*eth' /tmp/read || iov fail stale-read sriov_numvfs "reads 0 at: $(grep -m1 '^0 .*eth' /tmp/read)"
