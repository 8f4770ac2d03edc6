/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of QEMU's plugin API that the plugins of this folder use, as QEMU documents them in "QEMU TCG Plugins"
 * (docs/devel/tcg-plugins). QEMU's own header need not be installed.
 *
 * A plugin is compiled once for each version of the API that differs for it, with PLUGIN_API set to 4 (as in QEMU 10.0;
 * versions 5 and 6 differ only in what is not used here) or 7 (as in QEMU 11.1). Each plugin is one C file, which
 * includes this header once.
 */
#include <stddef.h>
#include <stdint.h>

#ifndef PLUGIN_API
#error "define PLUGIN_API as the version of the plugin API"
#endif

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

/* The beginning of the structure. The rest is about the guest. */
typedef struct {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
} qemu_info_t;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu, void *userdata);

#if PLUGIN_API >= 7
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(struct qemu_plugin_tb *tb, void *userdata);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t callback,
					   void *userdata);
#else
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t callback);
#endif
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_udata_cb_t callback,
					    enum qemu_plugin_cb_flags flags, void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

/* QEMU reads it when it loads the plugin. */
EXPORT int qemu_plugin_version = PLUGIN_API;
