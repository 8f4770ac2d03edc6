// SPDX-License-Identifier: GPL-2.0-only
/*
 * Compiled by a recorded command of a kernel's build, with -g, and never linked. The debug information of the object
 * says how the structs of these headers are laid out in that kernel. kernels/src/layout/members.rs says which of them
 * are read, and why.
 *
 * A header that a version of the kernel does not have is left out. Its members count as absent then.
 * Structs that are private to a .c file of the kernel are not here: PRIVATE in kernels/src/layout/shelf.rs names
 * these files, and each is compiled by itself.
 */

#include <linux/completion.h>
#include <linux/device.h>
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/kernfs.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pci_hotplug.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/semaphore.h>
#include <linux/swait.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/switch_to.h>

/* struct mutex_waiter: in include/linux/mutex.h until 5.15. */
#if __has_include("kernel/locking/mutex.h")
#include "kernel/locking/mutex.h"
#endif

/* struct rt_mutex_waiter. */
#if __has_include("kernel/locking/rtmutex_common.h")
#include "kernel/locking/rtmutex_common.h"
#endif

/* struct worker. */
#if __has_include("kernel/workqueue_internal.h")
#include "kernel/workqueue_internal.h"
#endif

/* struct vfio_device_file: since 6.6. */
#if __has_include("drivers/vfio/vfio.h")
#include "drivers/vfio/vfio.h"
#endif

/* struct controller. */
#if __has_include("drivers/pci/hotplug/pciehp.h")
#include "drivers/pci/hotplug/pciehp.h"
#endif
