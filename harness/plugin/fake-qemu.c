// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Plays QEMU for the tests of the plugins (harness/tests/plugin.rs). It is linked with a plugin, installs it with the
 * arguments that it was given, has it look through one block of instructions as often as ROUNDS says, prints a line, and
 * executes this block for ever.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct qemu_plugin_insn {
	uint64_t address;
	size_t size;
	uint8_t bytes[8];
	void (*callback)(unsigned int vcpu, void *userdata);
	void *userdata;
};

/* Where the block is. */
#ifndef BLOCK
#define BLOCK 0x1000
#endif

/* How often it is translated. */
#ifndef ROUNDS
#define ROUNDS 1
#endif

/* An instruction, the marker, and another nopl of the same length. */
static struct qemu_plugin_insn block[] = {
	{ .address = BLOCK, .size = 1, .bytes = { 0x90 } },
	{ .address = BLOCK + 1, .size = 8, .bytes = { 0x0f, 0x1f, 0x84, 0x00, 0xe1, 0xfe, 0x0f, 0x1c } },
	{ .address = BLOCK + 9, .size = 8, .bytes = { 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 } },
};

#if PLUGIN_API >= 7
typedef void (*translated_cb)(void *tb, void *userdata);
#else
typedef void (*translated_cb)(uint64_t id, void *tb);
#endif
static translated_cb translated;

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_cb callback
#if PLUGIN_API >= 7
					   , void *userdata
#endif
					   )
{
	translated = callback;
}

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*callback)(unsigned int, void *),
					    int flags, void *userdata)
{
	insn->callback = callback;
	insn->userdata = userdata;
}

size_t qemu_plugin_tb_n_insns(const void *tb)
{
	return sizeof(block) / sizeof(block[0]);
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const void *tb, size_t index)
{
	return &block[index];
}

size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size)
{
	memcpy(to, insn->bytes, size < insn->size ? size : insn->size);
	return insn->size;
}

size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn)
{
	return insn->size;
}

uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn)
{
	return insn->address;
}

int main(int argc, char **argv)
{
	struct {
		const char *target;
		int min;
		int cur;
	} info = { "x86_64", 2, PLUGIN_API };

	if (qemu_plugin_install(1, &info, argc - 1, argv + 1))
		return 1;
	for (int round = 0; round < ROUNDS; round++) {
#if PLUGIN_API >= 7
		translated(block, NULL);
#else
		translated(1, block);
#endif
	}
	puts("executing");
	fflush(stdout);
	for (unsigned int round = 0;; round++) {
		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++)
			if (block[i].callback)
				block[i].callback(round % 2, block[i].userdata);
		usleep(1000);
	}
}
