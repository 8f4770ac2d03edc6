// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TCG plugin of QEMU that stops a guest at defined instructions until the harness lets it go on.
 *
 * With "-accel tcg,thread=single" all virtual CPUs run on one thread. A plugin's callback runs on this thread, between
 * two instructions. While the callback waits, no virtual CPU executes anything, and with "-icount" the guest's time
 * stands still, because it is a count of instructions. QEMU's main loop goes on: QMP, devices and character devices
 * work.
 *
 * The guest is stopped at
 * - the marker: an instruction that does nothing and that no compiler emits. The agent executes it after each line that
 *   it sends (guest-images/agent/src/marker.rs). On any other machine it is a no-op.
 * - places: addresses that are given on the command line.
 *
 * Arguments (-plugin file=...,NAME=VALUE,...):
 *   socket=PATH       a Unix socket on which the harness listens. The plugin connects to it.
 *   at=ADDRESS        a place: the address of an instruction. The guest stops there when the harness has asked for it.
 *                     May be given several times. An instruction that has been translated before cannot be added.
 *   probe=on          print the API versions that QEMU supports, and end QEMU at once.
 *
 * The plugin sends a line for each stop:
 *   mark VCPU             a virtual CPU stands before the marker
 *   place N VCPU HIT      it stands before the N-th "at" (from 0), at this execution
 *
 * The harness sends:
 *   aN HIT\n   stop at the N-th place, at its HIT-th execution from now on, counted from 1. With HIT 0 do not stop there.
 *   g   go on. Ignored unless the guest is stopped.
 *   f   be free: go on, and do not stop any more.
 *   h   hold: stop again, from the next marker or place on.
 *
 * When the connection ends, the plugin ends QEMU: a guest without its harness would run on, with no time limit, at the
 * speed of a CPU. The exit status is 0, because the harness ends QEMU by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

/* ---- the gate ---- */

/* nopl 0x1c0ffee1(%rax,%rax,1) */
static const uint8_t marker[] = { 0x0f, 0x1f, 0x84, 0x00, 0xe1, 0xfe, 0x0f, 0x1c };

struct place {
	uint64_t address;
	/* So many executions until the guest is stopped, with that one. 0: it is not stopped. */
	_Atomic uint64_t left;
	/* Executions so far. Only the thread of the virtual CPUs uses it. */
	uint64_t hits;
};

static struct place places[64];
static size_t place_count;

static int host = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
/* All under the lock. */
static bool stopped;
static bool is_free;

/* Reads a byte of what the harness says. Ends QEMU when there is no harness any more. */
static char hear(void)
{
	for (;;) {
		char said;
		ssize_t length = read(host, &said, 1);

		if (length == 1)
			return said;
		if (length == 0 || errno != EINTR)
			_exit(0);
	}
}

/* Reads which place to stop at, and when. */
static void hear_place(void)
{
	char line[64], *end;
	size_t length = 0;
	unsigned long long which;

	while ((line[length] = hear()) != '\n')
		if (++length == sizeof(line))
			_exit(1);
	line[length] = 0;
	which = strtoull(line, &end, 10);
	if (which >= place_count || *end != ' ')
		_exit(1);
	places[which].left = strtoull(end, NULL, 10);
}

/* Does what the harness says. */
static _Noreturn void obey(void)
{
	for (;;) {
		char said = hear();

		if (said == 'a') {
			hear_place();
			continue;
		}
		pthread_mutex_lock(&lock);
		if (said == 'g' || said == 'f')
			stopped = false;
		if (said == 'f' || said == 'h')
			is_free = said == 'f';
		pthread_cond_signal(&changed);
		pthread_mutex_unlock(&lock);
	}
}

static void *listen_to_host(void *unused)
{
	(void)unused;
	obey();
}

/* ---- QEMU's main loop ---- */

/*
 * The main loop runs beside the thread of the virtual CPUs. It also runs the guest's timers, and moves the guest's time
 * when all virtual CPUs are idle (icount_start_warp_timer() in accel/tcg/icount-common.c). So two things depend on how
 * far it is, and that on the host's load:
 * - It is woken whenever the virtual CPUs become idle, and once more by the timers that are then due. If it still runs
 *   when a virtual CPU executes "hlt", it may move the time before the instructions of this turn have been counted.
 * - It ends the turn of a virtual CPU when it runs a timer. The thread of the virtual CPUs does not.
 *
 * So the thread of the virtual CPUs waits until the main loop sleeps, before each "hlt" and before a guest goes on.
 */

/* Says in which system call the main thread sleeps ("/proc/PID/task/TID/syscall", proc(5)). -1: it cannot be read. */
static int main_thread = -1;

/*
 * The main loop may itself wait for the virtual CPUs, so it is not waited for longer than about 0.2 s. It sleeps within
 * some microseconds unless the host is busy.
 */
#define LOOKS 2000

static void open_main_thread(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", getpid());
	main_thread = open(path, O_RDONLY | O_CLOEXEC);
}

/* Whether the main thread sleeps in ppoll(), and nothing has woken it. */
static bool main_loop_sleeps(void)
{
	char line[16];
	ssize_t length = pread(main_thread, line, sizeof(line) - 1, 0);

	if (length <= 0)
		return true;
	line[length] = 0;
	/* It says "running" of a thread that does not sleep. */
	return line[0] >= '0' && line[0] <= '9' && strtol(line, NULL, 10) == SYS_ppoll;
}

static void await_main_loop(void)
{
	struct timespec pause = { .tv_nsec = 50 * 1000 };

	for (int looks = 0; main_thread >= 0 && looks < LOOKS && !main_loop_sleeps(); looks++)
		if (looks > 20)
			nanosleep(&pause, NULL);
}

/* Stops the guest, tells the harness, and waits. */
static void stop(const char *line, int length)
{
	pthread_mutex_lock(&lock);
	if (!is_free) {
		stopped = true;
		if (send(host, line, length, MSG_NOSIGNAL) != length)
			_exit(0);
		while (stopped)
			pthread_cond_wait(&changed, &lock);
	}
	pthread_mutex_unlock(&lock);
	await_main_loop();
}

static void at_hlt(unsigned int vcpu, void *unused)
{
	(void)vcpu;
	(void)unused;
	await_main_loop();
}

static void at_marker(unsigned int vcpu, void *unused)
{
	char line[32];

	(void)unused;
	stop(line, snprintf(line, sizeof(line), "mark %u\n", vcpu));
}

static void at_place(unsigned int vcpu, void *which)
{
	struct place *place = which;
	char line[64];

	place->hits++;
	if (!place->left || --place->left)
		return;
	stop(line, snprintf(line, sizeof(line), "place %zu %u %llu\n", (size_t)(place - places), vcpu,
			    (unsigned long long)place->hits));
}

static bool is_marker(const struct qemu_plugin_insn *insn)
{
	uint8_t bytes[sizeof(marker)];

	return qemu_plugin_insn_size(insn) == sizeof(marker) &&
	       qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(bytes) &&
	       !memcmp(bytes, marker, sizeof(marker));
}

static bool is_hlt(const struct qemu_plugin_insn *insn)
{
	uint8_t byte;

	return qemu_plugin_insn_size(insn) == 1 && qemu_plugin_insn_data(insn, &byte, 1) == 1 && byte == 0xf4;
}

/* Whether this is an address of the kernel (Documentation/arch/x86/x86_64/mm.rst). */
static bool is_kernel(uint64_t address)
{
	return address >> 63;
}

/*
 * Looks for markers and places in a block of instructions that QEMU has translated. Markers are in programs, and places
 * are in the kernel. Most blocks are the kernel's, and most guests have no place.
 */
static void look_through(struct qemu_plugin_tb *block)
{
	size_t count = qemu_plugin_tb_n_insns(block);
	struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(block, count - 1);

	/* Nothing of a block is executed after it. */
	if (is_hlt(last))
		qemu_plugin_register_vcpu_insn_exec_cb(last, at_hlt, QEMU_PLUGIN_CB_NO_REGS, NULL);
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);

		if (is_kernel(address) && !place_count)
			return;
		for (size_t n = 0; n < place_count; n++)
			if (places[n].address == address)
				qemu_plugin_register_vcpu_insn_exec_cb(insn, at_place, QEMU_PLUGIN_CB_NO_REGS,
								       &places[n]);
		if (!is_kernel(address) && is_marker(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_marker, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

#if PLUGIN_API >= 7
static void translated(struct qemu_plugin_tb *block, void *unused)
{
	(void)unused;
	look_through(block);
}
#else
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	look_through(block);
}
#endif

static int failed(const char *what, const char *why)
{
	fprintf(stderr, "gate: cannot %s: %s\n", what, why);
	return 1;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		return failed("connect to the harness", "the path of the socket is too long");
	strcpy(address.sun_path, path);
	host = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (host < 0 || connect(host, (struct sockaddr *)&address, sizeof(address)))
		return failed("connect to the harness", strerror(errno));
	return 0;
}

/* Reads a number of the text. Moves the text behind it, or leaves it if there is no number. */
static uint64_t number(const char **text)
{
	char *end;
	uint64_t value = strtoull(*text, &end, 0);

	*text = end;
	return value;
}

static int add_place(const char *argument)
{
	struct place *place = &places[place_count];
	const char *text = argument;

	if (place_count == sizeof(places) / sizeof(places[0]))
		return failed("add a place", "there are too many");
	place->address = number(&text);
	if (!place->address || *text)
		return failed("parse a place", argument);
	place_count++;
	return 0;
}

/* Starts the thread that listens. QEMU's signals are for QEMU's threads. */
static int start_to_listen(void)
{
	sigset_t all, before;
	pthread_t thread;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, listen_to_host, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error ? failed("start a thread", strerror(error)) : 0;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		int error;

		if (!strcmp(argv[i], "probe=on")) {
			printf("gate: API %d to %d\n", info->version.min, info->version.cur);
			fflush(stdout);
			_exit(0);
		} else if (!strncmp(argv[i], "socket=", 7)) {
			error = connect_to(argv[i] + 7);
		} else if (!strncmp(argv[i], "at=", 3)) {
			error = add_place(argv[i] + 3);
		} else {
			error = failed("use an argument", argv[i]);
		}
		if (error)
			return error;
	}
	if (host < 0)
		return failed("start", "there is no socket=PATH");
#if PLUGIN_API >= 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
#endif
	open_main_thread();
	return start_to_listen();
}
