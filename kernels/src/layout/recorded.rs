//! Compiles files as the kernel's build has compiled one of its own. kbuild records the command of each object in a file
//! beside it (`scripts/Kbuild.include` in the kernel), and make reads it.

use std::fs;
use std::path::Path;

use crate::error::{BuildError, LayoutError};
use crate::event::CancelToken;
use crate::job::Job;

/// An object that every kernel has, relative to the output tree.
pub(crate) const OBJECT: &str = "kernel/panic.o";

/// Where the command of [`OBJECT`] is recorded.
const RECORD: &str = "kernel/.panic.o.cmd";

/// The trees of a build.
pub(crate) struct Trees<'a> {
    /// The source.
    pub source: &'a Path,
    /// The path of the source at the time of the build. It is in the recorded command.
    pub recorded: &'a Path,
    /// The output tree. It is only read.
    pub output: &'a Path,
}

impl<'a> Trees<'a> {
    /// Trees that lie where the build was.
    pub(crate) fn in_place(source: &'a Path, output: &'a Path) -> Trees<'a> {
        Trees { source, recorded: source, output }
    }
}

/// The recorded command of a C file.
pub(super) struct Recorded<'a> {
    trees: &'a Trees<'a>,
    /// The compiler and its flags, without those that name files.
    command: Vec<String>,
}

impl<'a> Recorded<'a> {
    /// Reads the recorded command of [`OBJECT`].
    pub(super) fn read(trees: &'a Trees<'a>) -> Result<Recorded<'a>, BuildError> {
        let path = trees.output.join(RECORD);
        let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        match command(&text, trees) {
            Ok(command) => Ok(Recorded { trees, command }),
            Err(problem) => Err(BuildError::layout(&path)(LayoutError::Recorded { problem })),
        }
    }

    /// Compiles a C file with debug information. Takes about a second.
    pub(super) fn compile(&self, file: &Path, object: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
        let (program, flags) = self.command.split_first().map_or(("gcc", &[][..]), |(first, rest)| (first, rest));
        let job = Job::new(program).args(flags).within(self.trees.output);
        let job = job.args(["-w", "-g", "-gdwarf-5", "-fno-eliminate-unused-debug-types", "-c"]);
        let job = job.arg("-I").arg(self.trees.source).arg("-o").arg(object).arg(file);
        let name = file.strip_prefix(self.trees.source).ok().or_else(|| file.file_name().map(Path::new));
        let what = format!("compiling {} for its structs", name.unwrap_or(file).display());
        job.run(cancel).map_err(BuildError::job(what))
    }
}

/// The compiler and its flags in a record such as `savedcmd_kernel/panic.o := gcc ... -o kernel/panic.o panic.c ; ...`.
fn command(record: &str, trees: &Trees) -> Result<Vec<String>, &'static str> {
    let (name, line) = record.lines().next().unwrap_or_default().split_once(":=").ok_or("it has no command")?;
    // Until 6.2 the name began with "cmd_".
    if !name.trim_end().ends_with(&format!("cmd_{OBJECT}")) {
        return Err("its command is that of another file");
    }
    // make would replace these.
    let line = line.replace("$(pound)", "#").replace("$$", "$");
    let words = shell_words::split(&line).map_err(|_| "its quotes are not closed")?;
    let (recorded, source) = (trees.recorded.to_string_lossy(), trees.source.to_string_lossy());
    let mut command = Vec::new();
    // Other commands may follow, such as objtool.
    let mut words = words.into_iter().take_while(|word| word != ";" && word != "&&");
    while let Some(word) = words.next() {
        let is_object = word == "-o";
        if is_object {
            words.next();
        }
        // What the object depends on must not be written into the output tree.
        let is_of_file = is_object || word == "-c" || word.starts_with("-Wp,-M") || word.ends_with(".c");
        // Which warnings there are differs from version to version, and so does how much debug information.
        let is_wordy = word.starts_with("-W") && !word.starts_with("-Wa,") && !word.starts_with("-Wp,");
        let is_debug = word.starts_with("-g") || word == "-fno-eliminate-unused-debug-types";
        if !is_of_file && !is_wordy && !is_debug {
            command.push(word.replace(&*recorded, &source));
        }
    }
    if command.is_empty() { Err("its command is empty") } else { Ok(command) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(record: &str) -> Result<String, &'static str> {
        let [source, recorded, output] = ["/src", "/build/source", "/out"].map(Path::new);
        Ok(shell_words::join(command(record, &Trees { source, recorded, output })?))
    }

    #[test]
    fn the_flags_of_the_compiler_are_kept_and_files_and_warnings_are_not() {
        let record = "savedcmd_kernel/panic.o := ccache gcc -Wp,-MMD,kernel/.panic.o.d -nostdinc \
            -I/build/source/include -I./include -include /build/source/include/linux/kconfig.h \
            -fmacro-prefix-map=/build/source/= -Wall -Werror=return-type -Wa,-mx86 -O2 -g1 -gdwarf-4 -Ikernel \
            -DKBUILD_MODNAME='\"panic\"' -D'A(x)=$(pound)x' -c -o kernel/panic.o /build/source/kernel/panic.c\n\n\
            source_kernel/panic.o := /build/source/kernel/panic.c\n";
        insta::assert_snapshot!(of(record).unwrap(), @r#"ccache gcc -nostdinc -I/src/include -I./include -include /src/include/linux/kconfig.h '-fmacro-prefix-map=/src/=' -Wa,-mx86 -O2 -Ikernel '-DKBUILD_MODNAME="panic"' '-DA(x)=#x'"#);
        let older =
            "cmd_kernel/panic.o := gcc -O2 -c -o kernel/panic.o panic.c ; ./tools/objtool/objtool kernel/panic.o\n";
        insta::assert_snapshot!(of(older).unwrap(), @"gcc -O2");
    }

    #[test]
    fn a_record_that_is_not_as_expected_is_refused() {
        insta::assert_snapshot!(of("").unwrap_err(), @"it has no command");
        insta::assert_snapshot!(of("cmd_kernel/fork.o := gcc").unwrap_err(), @"its command is that of another file");
        insta::assert_snapshot!(of("cmd_kernel/panic.o := gcc 'x").unwrap_err(), @"its quotes are not closed");
        insta::assert_snapshot!(of("cmd_kernel/panic.o := ; objtool").unwrap_err(), @"its command is empty");
    }
}
