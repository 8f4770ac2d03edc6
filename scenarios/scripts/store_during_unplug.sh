#!/bin/sh
# iov: about = VFs are enabled while an unplug of the PF waits for pci_rescan_remove_lock. When the lock is free, both must end.
# iov: topology = two-slots
# iov: triggers = device-del
# iov: detects = numvfs-store-vs-hotplug, numvfs-store-vs-remove-kernfs
PF=$(iov pf 0)
NUMVFS=$(iov pf 0 --sysfs)/sriov_numvfs
HOLDER=$(iov hold rescan-lock $(iov pf 1))
iov remove $PF &
iov wait-blocked any pci_lock_rescan_remove
echo 2 > $NUMVFS &
iov wait-blocked $! pci_lock_rescan_remove --within 3
kill $HOLDER
wait
