//! What is submitted: three scripts, which people can read and change.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::evidence::{EvidenceError, SplitNote, folder_of_runs, write_whole};

/// The command to run on the nodes.
#[derive(Clone, Debug)]
pub struct Work {
    /// The program: a copy is kept with the scripts, so that a build in the meantime does not change it.
    pub program: PathBuf,
    /// Its arguments, without those that choose a part and a place.
    pub arguments: Vec<String>,
    /// The folder in which it is started.
    pub within: PathBuf,
    /// The folder of runs, for the run that the parts become.
    pub out: PathBuf,
}

/// The folder with the scripts, the plan, and the evidence of the parts. All nodes must see it under the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// A new folder, in the folder of runs.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(out: &Path) -> Result<Place, EvidenceError> {
        Ok(Place(folder_of_runs(&out.join("slurm"))?))
    }

    /// The folder that would be made, for people.
    pub fn shown(out: &Path) -> Place {
        Place(out.join("slurm/TIME"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder with a folder of runs for each part, named by its number.
    pub fn parts(&self) -> PathBuf {
        self.0.join("parts")
    }

    /// The folder of runs of a part.
    pub fn part(&self, part: u32) -> PathBuf {
        self.parts().join(part.to_string())
    }

    /// What `merge` printed: the results for programs.
    pub(super) fn results(&self) -> PathBuf {
        self.0.join("merge.json")
    }

    /// The output of a job.
    pub(super) fn log(&self, job: &str) -> PathBuf {
        self.0.join(format!("{job}.log"))
    }

    pub(super) fn script(&self, job: &str) -> PathBuf {
        self.0.join(format!("{job}.sh"))
    }

    fn program(&self) -> PathBuf {
        self.0.join("xtask")
    }

    fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }
}

/// The scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scripts {
    /// Builds the kernels and the guest image.
    pub build: String,
    /// Runs the part whose number is the array's task.
    pub parts: String,
    /// Makes one run of the parts.
    pub merge: String,
}

impl Scripts {
    /// The scripts for some work in so many parts.
    pub fn new(work: &Work, place: &Place, parts: u32) -> Scripts {
        let quoted = |path: PathBuf| shell_words::quote(&path.display().to_string()).into_owned();
        let (program, plan, of_parts) = (quoted(place.program()), quoted(place.plan()), quoted(place.parts()));
        let own = format!("{program} {}", shell_words::join(&work.arguments));
        let script = |job: &str, about: &str, directives: &[String], command: &str| {
            let lines: String = directives.iter().map(|line| format!("#SBATCH {line}\n")).collect();
            let within = quoted(work.within.clone());
            format!(
                "#!/bin/sh\n# {about}\n#SBATCH --job-name=iov-regress-{job}\n{lines}cd {within} || exit 2\n{command}\n"
            )
        };
        let log = |name: &str| output(&place.0, name);
        // A task that runs again, because its node died, adds to the log of its first try.
        let append = || "--open-mode=append".to_owned();
        Scripts {
            build: script(
                "build",
                "Builds the kernels and the guest image, for a cache that the nodes share.",
                &[log("build"), append(), "--requeue".to_owned()],
                &format!("exec {own} --build-only"),
            ),
            parts: script(
                "part",
                "Runs one part of the plan: the task of the array.",
                &[format!("--array=1-{parts}"), log("part-%a"), append(), "--requeue".to_owned()],
                &format!(
                    "exec {own} --partition {plan}:\"$SLURM_ARRAY_TASK_ID\"/{parts} --out {of_parts}/\"$SLURM_ARRAY_TASK_ID\""
                ),
            ),
            merge: script(
                "merge",
                "Makes one run of the parts that are there.",
                &[log("merge"), append(), "--requeue".to_owned()],
                &format!(
                    "exec {program} merge --partial {of_parts} --out {} --format json > {}",
                    quoted(work.out.clone()),
                    quoted(place.results())
                ),
            ),
        }
    }

    /// Writes the scripts, the plan and a copy of the program.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, work: &Work, place: &Place, split: &SplitNote) -> Result<(), EvidenceError> {
        for (job, text) in self.by_job() {
            write_whole(&place.script(job), text.as_bytes())?;
        }
        split.write_file(&place.plan())?;
        let (from, to) = (&work.program, place.program());
        fs::copy(from, &to).map_err(EvidenceError::io("copy", from))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))
            .map_err(EvidenceError::io("set the mode of", &to))?;
        fs::create_dir_all(place.parts()).map_err(EvidenceError::io("create", &place.parts()))
    }

    /// Each script with the name of its job, in the order in which they are submitted.
    pub fn by_job(&self) -> [(&'static str, &str); 3] {
        [("build", &self.build), ("part", &self.parts), ("merge", &self.merge)]
    }
}

/// The option that says where the output of a job goes. Slurm replaces `%a` in the name, and the like, which a folder may
/// have by chance. It reads the option as a shell does, but has a meaning for `\` between all quotes.
fn output(folder: &Path, job: &str) -> String {
    let path = Place(folder.display().to_string().replace('%', "%%").into()).log(job).display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+%=:,@".contains(c);
    if path.chars().all(is_plain) {
        return format!("--output={path}");
    }
    format!("--output=\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_odd_letters_is_one_word() {
        assert_eq!(output(Path::new("/a/b"), "part-%a"), "--output=/a/b/part-%a.log");
        assert_eq!(output(Path::new("/a b/50%"), "part-%a"), "--output=\"/a b/50%%/part-%a.log\"");
        assert_eq!(output(Path::new("/a\"#b"), "build"), "--output=\"/a\\\"#b/build.log\"");
    }

    #[test]
    fn the_scripts_can_be_read() {
        let work = Work {
            program: "/src/target/debug/xtask".into(),
            arguments: ["run-matrix", "--scenarios", "owner*"].map(str::to_owned).into(),
            within: "/home/me/my checkout".into(),
            out: "/shared/runs".into(),
        };
        let scripts = Scripts::new(&work, &Place::shown(Path::new("/shared/runs")), 4);
        let all: Vec<_> = scripts.by_job().map(|(job, text)| format!("== {job}.sh\n{text}")).into();
        insta::assert_snapshot!(all.concat(), @r#"
        == build.sh
        #!/bin/sh
        # Builds the kernels and the guest image, for a cache that the nodes share.
        #SBATCH --job-name=iov-regress-build
        #SBATCH --output=/shared/runs/slurm/TIME/build.log
        #SBATCH --open-mode=append
        #SBATCH --requeue
        cd '/home/me/my checkout' || exit 2
        exec /shared/runs/slurm/TIME/xtask run-matrix --scenarios 'owner*' --build-only
        == part.sh
        #!/bin/sh
        # Runs one part of the plan: the task of the array.
        #SBATCH --job-name=iov-regress-part
        #SBATCH --array=1-4
        #SBATCH --output=/shared/runs/slurm/TIME/part-%a.log
        #SBATCH --open-mode=append
        #SBATCH --requeue
        cd '/home/me/my checkout' || exit 2
        exec /shared/runs/slurm/TIME/xtask run-matrix --scenarios 'owner*' --partition /shared/runs/slurm/TIME/plan.json:"$SLURM_ARRAY_TASK_ID"/4 --out /shared/runs/slurm/TIME/parts/"$SLURM_ARRAY_TASK_ID"
        == merge.sh
        #!/bin/sh
        # Makes one run of the parts that are there.
        #SBATCH --job-name=iov-regress-merge
        #SBATCH --output=/shared/runs/slurm/TIME/merge.log
        #SBATCH --open-mode=append
        #SBATCH --requeue
        cd '/home/me/my checkout' || exit 2
        exec /shared/runs/slurm/TIME/xtask merge --partial /shared/runs/slurm/TIME/parts --out /shared/runs --format json > /shared/runs/slurm/TIME/merge.json
        "#);
    }
}
