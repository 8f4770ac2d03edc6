//! Layouts of a tiny source tree that is built like a kernel: when they are made, and which kernels share them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use kernels::cache::Cache;
use kernels::layout::{Layout, LayoutError};
use kernels::tree::Tree;
use kernels::{BuildEvent, Builder, CancelToken, KernelImage, Manifest};
use tempfile::TempDir;

/// The C file that includes the kernel's headers. The tiny tree has all of them, and most are empty.
const HEADERS: &str = include_str!("../layout/types.c");

/// The command of `kernel/panic.o` is recorded as kbuild does it.
const MAKEFILE: &str = r#"
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 0
CC_COMMAND = gcc -Wp,-MMD,kernel/.panic.o.d -nostdinc -I$(CURDIR)/include -I$(CURDIR)/arch/x86/include \
	-include ./config.h -Wall -c -o kernel/panic.o $(CURDIR)/kernel/panic.c
tinyconfig:
	@echo CONFIG_TINY=y > $(O)/.config
olddefconfig:
	@true
kernel/panic.o:
	@mkdir -p $(O)/kernel
	@sed -n 's/^\(CONFIG_[A-Z]*\)=y/#define \1 1/p' $(O)/.config > $(O)/config.h
	@cd $(O) && $(CC_COMMAND)
	@echo 'savedcmd_kernel/panic.o := $(CC_COMMAND) ; ./tools/objtool/objtool kernel/panic.o' > $(O)/kernel/.panic.o.cmd
vmlinux: kernel/panic.o
	@echo '  LD      vmlinux'
	@test ! -e refused
	@gcc -nostdinc -I$(CURDIR)/include -include $(O)/config.h -c show.c -o $(O)/vmlinux
	@mkdir -p $(O)/include/config
	@nm $(O)/vmlinux > $(O)/System.map
	@echo 6.12.0 > $(O)/include/config/kernel.release
"#;

const TASK: &str = "\
struct task_struct {
	long state;
#ifdef CONFIG_LARGE
	char name[16];
#endif
	int pid;
};
";

const MANIFEST: &str = r#"
[[base]]
name = "tiny"
path = "tree"
config = ["a.config"]
[[variant]]
name = "stock"
about = ""
base = "tiny"
[[variant]]
name = "code"
about = ""
base = "tiny"
patches = ["code.patch"]
[[variant]]
name = "header"
about = ""
base = "tiny"
patches = ["header.patch"]
[own]
config = ["a.config"]
needs = []
[[profile]]
name = "large"
about = ""
config = ["large.config"]
slower = 1
"#;

const HEADER_PATCH: &str = "\
--- a/include/linux/sched.h
+++ b/include/linux/sched.h
@@ -1,2 +1,3 @@
 struct task_struct {
+\tlong more;
 \tlong state;
";

const CODE_PATCH: &str = "\
--- a/show.c
+++ b/show.c
@@ -1,2 +1,2 @@
 #include <linux/sched.h>
-int show(struct task_struct *task) { return task->pid; }
+int show(struct task_struct *task) { return task->pid + 1; }
";

struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        let included = HEADERS.lines().filter_map(|line| line.strip_prefix("#include ")).map(|name| {
            let path = name.trim_matches(['<', '>', '"']);
            match path.strip_prefix("asm/") {
                Some(rest) => format!("tree/arch/x86/include/asm/{rest}"),
                None if name.starts_with('<') => format!("tree/include/{path}"),
                None => format!("tree/{path}"),
            }
        });
        included.for_each(|path| bench.write(&path, ""));
        for (name, content) in [
            ("kernels.toml", MANIFEST),
            ("a.config", "CONFIG_A=y\n"),
            ("large.config", "CONFIG_LARGE=y\n"),
            ("header.patch", HEADER_PATCH),
            ("code.patch", CODE_PATCH),
            ("tree/Kbuild", ""),
            ("tree/scripts/kconfig/conf.c", ""),
            ("tree/Makefile", MAKEFILE),
            ("tree/include/linux/sched.h", TASK),
            ("tree/kernel/panic.c", "int panic;\n"),
            ("tree/kernel/kthread.c", "struct kthread { long flags; void *data; } one;\n"),
            ("tree/show.c", "#include <linux/sched.h>\nint show(struct task_struct *task) { return task->pid; }\n"),
        ] {
            bench.write(name, content);
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn manifest(&self) -> Manifest {
        Manifest::load(self.0.path()).unwrap()
    }

    fn builder(&self, manifest: Manifest) -> Builder {
        Builder::new(manifest, Cache::at(self.path("cache")))
    }

    fn build(&self, manifest: Manifest, variant: &str) -> KernelImage {
        self.builder(manifest).build(variant, &|_: BuildEvent| {}, &CancelToken::new()).unwrap()
    }

    /// The layouts of a kernel, made if they are not there. No kernel is built for that.
    fn layout(&self, manifest: Manifest, image: &KernelImage) -> Layout {
        let built = Mutex::new(0);
        let observer = |event| {
            if matches!(event, BuildEvent::Objects { .. } | BuildEvent::Built { .. }) {
                *built.lock().unwrap() += 1;
            }
        };
        let layout = self.builder(manifest).layout(image, &observer, &CancelToken::new());
        let layout = layout.unwrap_or_else(|error| panic!("{}: {error:?}", image.variant));
        assert_eq!(*built.lock().unwrap(), 0, "{} was built", image.variant);
        layout
    }

    fn remove(&self, shelf: &str) {
        fs::remove_dir_all(self.path("cache").join(shelf)).unwrap();
    }
}

fn pid(layout: &Layout) -> Option<u32> {
    layout.offset("task_struct", "pid")
}

#[test]
fn a_build_keeps_the_layouts_and_kernels_with_the_same_headers_share_them() {
    let bench = Bench::new();
    let [code, stock, header] = ["code", "stock", "header"].map(|name| bench.build(bench.manifest(), name));
    let of = |image: &KernelImage| Layout::of_image(image).unwrap();
    assert_eq!([&stock, &code, &header].map(|image| pid(&of(image))), [Some(8), Some(8), Some(16)]);
    assert_eq!(of(&stock).offset("kthread", "data"), Some(8));
    assert_eq!(of(&stock).offset("mutex", "owner"), None);
    assert!(stock.layout == code.layout && stock.layout != header.layout);
    assert_eq!(bench.builder(bench.manifest()).find("header").unwrap().layout, header.layout);

    let under = || bench.manifest().under("large").unwrap();
    let large = bench.build(under(), "header+large");
    assert_eq!(pid(&of(&large)), Some(32));
}

#[test]
fn layouts_of_kernels_that_were_built_without_them_are_made_later() {
    let bench = Bench::new();
    let images = ["header", "stock", "code"].map(|name| bench.build(bench.manifest(), name));
    let made = || images.each_ref().map(|image| pid(&bench.layout(bench.manifest(), image)));
    // From the trees of the base, and without them.
    for gone in [&["layouts"][..], &["layouts", "trees"]] {
        gone.iter().for_each(|shelf| bench.remove(shelf));
        let missing = Layout::of_image(&images[0]).unwrap_err();
        assert!(matches!(missing, LayoutError::Missing { .. }), "{missing}");
        assert_eq!(made(), [Some(16), Some(8), Some(8)], "without {gone:?}");
        assert!(images.iter().all(|image| Layout::of_image(image).is_ok()));
    }
    // The trees are as builds expect them afterwards.
    bench.remove("images");
    let again = ["code", "header", "stock"].map(|name| bench.build(bench.manifest(), name));
    assert!(again.iter().all(|image| image.vmlinux.is_file()));
}

#[test]
fn layouts_of_revisions_of_a_tree_are_made_at_the_build_and_later() {
    let bench = Bench::new();
    let git = |script: &str| {
        let status = Command::new("sh").arg("-ec").arg(script).current_dir(bench.path("tree")).status();
        assert!(status.unwrap().success(), "{script}");
    };
    let commit = "git add .; git -c user.name=x -c user.email=x@example.org commit -qm x; git tag";
    git(&format!("git init -q -b master; {commit} one"));
    bench.write("tree/include/linux/sched.h", &TASK.replace("long state;", "long state[2];"));
    git(&format!("{commit} two"));
    let manifest = |rev: &str| {
        let mut manifest = bench.manifest();
        let tree = Tree::open(&bench.path("tree"), &CancelToken::new()).unwrap();
        manifest.add_revision(rev, tree.revision(rev, &CancelToken::new()).unwrap(), &[]);
        manifest
    };
    let images = ["one", "two"].map(|rev| bench.build(manifest(rev), rev));
    assert_eq!(images.each_ref().map(|image| pid(&Layout::of_image(image).unwrap())), [Some(8), Some(16)]);
    for gone in [&["layouts"][..], &["layouts", "outputs"]] {
        gone.iter().for_each(|shelf| bench.remove(shelf));
        let made = images.each_ref().map(|image| pid(&bench.layout(manifest(&image.variant), image)));
        assert_eq!(made, [Some(8), Some(16)], "without {gone:?}");
    }
}

#[test]
fn a_kernel_whose_headers_cannot_be_read_is_built_all_the_same() {
    let bench = Bench::new();
    bench.write("tree/include/linux/wait.h", "#error never\n");
    let image = bench.build(bench.manifest(), "stock");
    assert!(fs::read_to_string(&image.build_log).unwrap().contains("vmlinux"));
    let error = bench.builder(bench.manifest()).layout(&image, &|_: BuildEvent| {}, &CancelToken::new()).unwrap_err();
    assert_eq!(error.to_string(), "compiling types.c for its structs failed");
}
