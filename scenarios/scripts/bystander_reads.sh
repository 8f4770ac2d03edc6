#!/bin/sh
# iov: about = A removal waits for a vfio user. Another process reads sriov_numvfs. The read must not wait for the user.
# iov: triggers = device-del, yank
# iov: detects = numvfs-show-bystander
PF=$(iov pf)
NUMVFS=$(iov pf --sysfs)/sriov_numvfs
OWNER=$(iov own $PF --on-request 'touch /tmp/asked')
iov remove $PF &
until [ -e /tmp/asked ]; do sleep 0.1; done
cat $NUMVFS &
iov wait-blocked $! sriov_numvfs_show --within 3 &&
    iov fail blocked sriov_numvfs_show 'a read of sriov_numvfs waits until the vfio user releases the PF'
kill $OWNER
wait
