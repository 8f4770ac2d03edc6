#!/bin/sh
# iov: about = A reader that the PF's change uevent wakes must read the new sriov_numvfs.
# iov: detects = numvfs-stale-pf-uevent
# iov: kernel-args = preempt=full
PF=$(iov pf --sysfs)
READ=$(iov watch uevent --of "change ${PF#/sys}" --until change --read $PF/sriov_numvfs -- \
    sh -c "echo 2 > $PF/sriov_numvfs")
iov expect --stale sriov_numvfs "${READ##* }" 2
