// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Plays QEMU for the tests of the plugins (harness/tests/plugin.rs). It is linked with a plugin, installs it with the
 * arguments that it was given, has it look through one block of instructions as often as ROUNDS says, prints a line, and
 * executes this block for ever. With HLT, it executes a "hlt" once beside a busy main loop, and says what this loop does
 * then.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

/* An instruction, the marker, and another nopl of the same length. With HLT, a "hlt" alone. */
static struct qemu_plugin_insn block[] = {
#ifdef HLT
	{ .address = BLOCK, .size = 1, .bytes = { 0xf4 } },
#else
	{ .address = BLOCK, .size = 1, .bytes = { 0x90 } },
	{ .address = BLOCK + 1, .size = 8, .bytes = { 0x0f, 0x1f, 0x84, 0x00, 0xe1, 0xfe, 0x0f, 0x1c } },
	{ .address = BLOCK + 9, .size = 8, .bytes = { 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 } },
#endif
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

#ifdef HLT
static _Atomic bool executing, is_busy = true;

/* Comes to a "hlt". */
static void *execute_hlt(void *unused)
{
	executing = true;
	block[0].callback(0, block[0].userdata);
	puts(is_busy ? "the main loop is busy" : "the main loop sleeps");
	exit(0);
}

/* The main thread plays QEMU's main loop. It is still busy for a millisecond when a virtual CPU comes to a "hlt". */
static void halt(void)
{
	struct timespec began, now;
	pthread_t thread;

	if (pthread_create(&thread, NULL, execute_hlt, NULL))
		exit(1);
	while (!executing)
		;
	clock_gettime(CLOCK_MONOTONIC, &began);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - began.tv_sec) * 1000000000 + now.tv_nsec - began.tv_nsec < 1000000);
	is_busy = false;
	for (;;)
		ppoll(NULL, 0, NULL, NULL);
}
#else
static void execute(void)
{
	puts("executing");
	fflush(stdout);
	for (unsigned int round = 0;; round++) {
		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++)
			if (block[i].callback)
				block[i].callback(round % 2, block[i].userdata);
		usleep(1000);
	}
}
#endif

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
#ifdef HLT
	halt();
#else
	execute();
#endif
}
