#!/bin/sh
# iov: about = The PF must send a change uevent when its VFs are disabled.
# iov: detects = numvfs-no-uevent-on-disable
PF=$(iov pf --sysfs)
echo 2 > $PF/sriov_numvfs
iov watch uevent --of "change ${PF#/sys}" --until change --within 5 -- sh -c "echo 0 > $PF/sriov_numvfs" ||
    iov fail lost-event kobject_uevent 'the PF sent no change uevent while 2 VFs were disabled'
