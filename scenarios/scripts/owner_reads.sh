#!/bin/sh
# iov: about = A vfio user with one thread reads sriov_numvfs when it is asked for the PF. The read must return.
# iov: triggers = device-del, yank
# iov: detects = numvfs-show-vfio-remove
PF=$(iov pf)
iov own $PF --on-request 'cat $SYSFS/sriov_numvfs' --release
iov remove $PF
