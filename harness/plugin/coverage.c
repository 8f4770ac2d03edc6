// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TCG plugin of QEMU that notes which blocks of the guest's kernel QEMU has translated.
 *
 * QEMU translates a block of instructions when the guest is about to execute it, and not before. So the blocks that were
 * translated are those that were executed, up to the first instruction of a block that faults. A block that QEMU
 * translates again is noted again. Once a block is translated, the plugin costs nothing.
 *
 * Arguments (-plugin file=...,NAME=VALUE,...):
 *   out=PATH   the file for the blocks. It is created, or emptied.
 *
 * The file is an array of records in the byte order of the host: the address of a block and its size in bytes, 8 bytes
 * each. The first record with the address 0 ends the array. The plugin writes through a shared mapping, so the file is
 * whole however QEMU ends: by `quit`, by _exit() of another plugin, or by a signal.
 *
 * With "-accel tcg,thread=single" one thread translates, so there is no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api.h"

/* ---- the blocks ---- */

/* Where x86-64 maps the kernel and its modules, up to the highest address (Documentation/arch/x86/x86_64/mm.rst). */
#define KERNEL 0xffffffff80000000

struct record {
	uint64_t address;
	uint64_t size;
};

/* The file grows by this many records, and only this part of it is mapped. */
#define WINDOW 65536

static int file = -1;
static size_t windows;
/* The next record, and the end of the window. Equal if there is no window, or if it is full. */
static struct record *next, *end;

static int failed(const char *what, const char *why)
{
	fprintf(stderr, "coverage: cannot %s: %s\n", what, why);
	return 1;
}

/* Maps the next part of the file. Its space on the disk is allocated first: a write to a mapping has no other way to
 * fail than SIGBUS. */
static int map_window(void)
{
	size_t size = WINDOW * sizeof(struct record);
	off_t offset = windows * size;
	void *window;
	int error;

	if (next)
		munmap(end - WINDOW, size);
	next = end = NULL;
	error = posix_fallocate(file, offset, size);
	if (error)
		return failed("extend the file", strerror(error));
	window = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset);
	if (window == MAP_FAILED)
		return failed("map the file", strerror(errno));
	windows++;
	next = window;
	end = next + WINDOW;
	return 0;
}

static void note(const struct qemu_plugin_tb *block)
{
	size_t count = qemu_plugin_tb_n_insns(block);
	const struct qemu_plugin_insn *last;
	uint64_t address;

	if (file < 0 || !count)
		return;
	address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(block, 0));
	if (address < KERNEL)
		return;
	if (next == end && map_window()) {
		close(file);
		file = -1;
		return;
	}
	last = qemu_plugin_tb_get_insn(block, count - 1);
	next->size = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last) - address;
	next->address = address;
	next++;
}

#if PLUGIN_API >= 7
static void translated(struct qemu_plugin_tb *block, void *unused)
{
	(void)unused;
	note(block);
}
#else
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	note(block);
}
#endif

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "probe=on")) {
			printf("coverage: API %d to %d\n", info->version.min, info->version.cur);
			fflush(stdout);
			_exit(0);
		}
		if (strncmp(argv[i], "out=", 4))
			return failed("use an argument", argv[i]);
		file = open(argv[i] + 4, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (file < 0)
			return failed("create the file", strerror(errno));
	}
	if (file < 0)
		return failed("start", "there is no out=PATH");
	if (map_window())
		return 1;
#if PLUGIN_API >= 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
#endif
	return 0;
}
