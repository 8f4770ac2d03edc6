#!/bin/sh
# iov: about = A vfio user of a VF reads the PF's sriov_numvfs when VFs are disabled. The read must return.
# iov: detects = numvfs-show-vf-busy-disable
SYSFS=$(iov pf --sysfs)
echo 0 > $SYSFS/sriov_drivers_autoprobe
echo 1 > $SYSFS/sriov_numvfs
iov own $(iov vf 0) --on-request "cat $SYSFS/sriov_numvfs" --release
echo 0 > $SYSFS/sriov_numvfs
