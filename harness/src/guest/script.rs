//! A script of the user as the scenario: it runs in the guest, and its end is the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use guest_protocol::{Command, ProgramEnd, Sched};
use kernels::FailureKind;

use super::place::{describe, over};
use super::{Error, Guest, Program, Ran, Stuck};
use crate::script::{Begins, SKIPPED, Script};
use crate::verdict::Verdict;

/// The guest's shell.
pub(super) const SHELL: &str = "/bin/sh";

/// How many of the last lines of a script are the reason of its failure.
const LAST: usize = 3;

/// The most characters of each of them.
const LONGEST: usize = 200;

/// How long it may take to end a script that is late, in the host's time.
const ENDING: Duration = Duration::from_secs(60);

/// The most tasks that the guest may have while a script runs. Without one it has about 80.
const TASKS: u32 = 1000;

/// Where the kernel has this limit (`Documentation/admin-guide/sysctl/kernel.rst`).
const THREADS_MAX: &str = "/proc/sys/kernel/threads-max";

/// The folder that is there for files.
const THERE: &str = "/tmp";

impl Guest {
    /// Runs the cell's script. It passes with exit status 0, is skipped with 4, and fails with any other, unless tasks are
    /// stuck.
    ///
    /// # Errors
    /// The agent's. [`Error::Unprepared`] if the script does not end in time and no task is stuck: then there is no
    /// verdict.
    pub async fn script(&self) -> Result<Verdict, Error> {
        let script = self.script.ok_or_else(|| Error::Unprepared("this cell has no script".to_owned()))?;
        self.hear_words().await?;
        let from = self.agent().messages().position();
        if let Some(terminal) = self.terminal.filter(|terminal| terminal.begins == Begins::AtOnce) {
            self.put_files(script).await?;
            return self.shell(terminal, from).await;
        }
        self.carried_out(script, from).await
    }

    /// Runs the script, and judges its end.
    async fn carried_out(&self, script: &Script, from: usize) -> Result<Verdict, Error> {
        self.put_files(script).await?;
        let program = self.start_script(script).await?;
        let (operation, within) = (program.operation(), self.seconds(script.within.as_secs_f64()));
        let ending = async {
            tokio::select! {
                biased;
                said = self.serve_words(from) => said.map(Some),
                ended = over(operation, within) => ended.map(|()| None),
            }
        };
        let on_host = script.within_on_host();
        let Ok(ran) = tokio::time::timeout(on_host, self.or_proven(operation, ending)).await else {
            return self.hangs(&program, format!("{} s of the host's time", on_host.as_secs())).await;
        };
        let verdict = match ran {
            Ok(Ok(Some(said))) => {
                // A process that is stuck in the kernel is found below.
                let _ = self.end_program(&program).await;
                said
            }
            Ok(Ok(None)) => judge(&program.ended(self.prompt()).await?),
            Ok(Err(stuck)) => return Ok(self.deadlock(&stuck, &[])),
            Err(late) if late.late().is_some() => {
                let within = format!("{} s of the guest's time", script.within.as_secs());
                return self.hangs(&program, within).await;
            }
            Err(error) => return Err(error),
        };
        if verdict == Verdict::Pass {
            // A removal that the script did not wait for.
            return self.passes_unless_stuck(&[], &[]).await;
        }
        if matches!(verdict, Verdict::Fail(_)) {
            // A script may give up on a task that is stuck. Its own processes have been killed by now.
            let stuck = self.stuck().await.unwrap_or_default();
            if !stuck.is_empty() {
                return Ok(self.deadlock(&stuck, &[]));
            }
        }
        Ok(verdict)
    }

    async fn put_files(&self, script: &Script) -> Result<(), Error> {
        let folders = script.files.iter().filter_map(|file| Some(file.to.rsplit_once('/')?.0));
        let folders: BTreeSet<&str> = folders.filter(|folder| !folder.is_empty() && *folder != THERE).collect();
        if !folders.is_empty() {
            let args: Vec<&str> = ["-c", "mkdir -p \"$@\"", "sh"].into_iter().chain(folders).collect();
            self.run(SHELL, &args).await?.ended(self.prompt()).await?;
        }
        for file in &script.files {
            let unread = |error| Error::Unprepared(format!("cannot read {}: {error}", file.from.display()));
            let bytes = std::fs::read(&file.from).map_err(unread)?;
            let mode = std::fs::metadata(&file.from).map_err(unread)?.permissions().mode();
            self.agent().put_file(&file.to, &bytes, mode & 0o111 != 0, self.prompt()).await?;
        }
        Ok(())
    }

    async fn start_script(&self, script: &Script) -> Result<Program, Error> {
        // Without a limit, a script that forks without end keeps the agent from ending it.
        let (path, data) = (THREADS_MAX.to_owned(), TASKS.to_string());
        let limit = Command::Write { path, data, at: 0, sched: Sched::default() };
        self.agent().call(limit, self.prompt()).await?;
        self.agent().put_file(&script.path(), &script.text, true, self.prompt()).await?;
        let trigger = self.trigger.map(|trigger| ("TRIGGER".to_owned(), trigger.name().to_owned()));
        let env: BTreeMap<String, String> = trigger.into_iter().collect();
        let command = Command::Run { program: SHELL.to_owned(), args: vec![script.path()], env, socket: true };
        Ok(Program::of(self.agent().start(command).await?))
    }

    /// The verdict on a script that did not end in time. Its processes are killed: what is stuck then is stuck for ever.
    async fn hangs(&self, program: &Program, within: String) -> Result<Verdict, Error> {
        let mut why = format!("the script did not end within {within}");
        match tokio::time::timeout(ENDING, self.end_late(program)).await {
            Ok((stuck, _)) if !stuck.is_empty() => return Ok(self.deadlock(&stuck, &[])),
            Ok((_, Some(task))) => why += &format!("; {task} was in D state until its processes were killed"),
            Ok((_, None)) => why += ", and no task is stuck",
            Err(_) => why += &format!(", and its processes could not be ended within {} s", ENDING.as_secs()),
        }
        let printed = program.printed();
        why += &format!("; the last that it printed: {}", last_lines(&printed).unwrap_or("nothing".to_owned()));
        Err(Error::Unprepared(why))
    }

    /// Ends a script that is late. Returns the tasks that are stuck then, and one that has waited before.
    async fn end_late(&self, program: &Program) -> (Vec<Stuck>, Option<String>) {
        // A script that forks without end may keep the agent from looking at tasks. It can always end the script.
        let waiting = self.agent().tasks(&[], self.prompt()).await.unwrap_or_default();
        let _ = self.end_program(program).await;
        (self.stuck().await.unwrap_or_default(), waiting.first().map(describe))
    }
}

/// The verdict that follows from the end of a script.
fn judge(ran: &Ran) -> Verdict {
    let lines = last_lines(&ran.printed);
    match &ran.end {
        ProgramEnd::Exited(0) => Verdict::Pass,
        ProgramEnd::Exited(SKIPPED) => Verdict::Skip(lines.unwrap_or_else(|| format!("exit status {SKIPPED}"))),
        end => {
            let summary = match lines {
                Some(lines) => format!("{end}: {lines}"),
                None => format!("{end}, and nothing was printed"),
            };
            Verdict::fail(FailureKind::WrongState, &end.to_string(), summary)
        }
    }
}

/// The last lines of what a script printed that are not empty, in one line.
fn last_lines(printed: &str) -> Option<String> {
    let said = printed.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines: Vec<_> = said.rev().take(LAST).map(plain).collect();
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// The beginning of a line, with a sign for each character that would do something to a terminal.
fn plain(line: &str) -> String {
    let shown = line.chars().take(LONGEST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let dots = if line.chars().nth(LONGEST).is_some() { "..." } else { "" };
    shown.collect::<String>() + dots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(end: ProgramEnd, printed: &str) -> String {
        match judge(&Ran { end, printed: printed.to_owned(), unreported: 0 }) {
            Verdict::Fail(failure) => format!("{failure}: {}", failure.summary),
            other => format!("{}: {}", other.outcome(), other.reason().unwrap_or_default()),
        }
    }

    #[test]
    fn the_exit_status_is_the_verdict_and_the_last_lines_are_the_reason() {
        let verdicts = [
            judged(ProgramEnd::Exited(0), "all well\n"),
            judged(ProgramEnd::Exited(4), "no VFs here\n"),
            judged(ProgramEnd::Exited(4), ""),
            judged(ProgramEnd::Exited(1), "one\ntwo\n\n  three\nfour"),
            judged(ProgramEnd::Exited(127), ""),
            judged(ProgramEnd::Killed("SIGSEGV".to_owned()), "a\x1b[2J\n"),
        ];
        insta::assert_snapshot!(verdicts.join("\n"), @r"
        pass: 
        skip: no VFs here
        skip: exit status 4
        wrong-state at exit status 1: exit status 1: two; three; four
        wrong-state at exit status 127: exit status 127, and nothing was printed
        wrong-state at killed by SIGSEGV: killed by SIGSEGV: a�[2J
        ");
    }
}
