//! NMI backtraces of CPUs (`lib/nmi_backtrace.c`). Only these show the stack of a task that is running on a CPU.

use super::frame::{self, Frame};

/// The stack of the task with this number, innermost first, from the lines of a log without timestamps. None if no CPU
/// reports that it ran this task in the kernel.
pub fn backtrace<'a>(lines: impl IntoIterator<Item = &'a str>, tid: i32) -> Option<Vec<String>> {
    let head = format!(" PID: {tid} ");
    let mut lines = lines.into_iter().skip_while(|line| !(line.starts_with("CPU: ") && line.contains(&head)));
    lines.next()?;
    // The report of the next CPU begins with its own `CPU: ` line. The frames of the NMI handler are not the task's.
    let of_task = lines.take_while(|line| !line.starts_with("CPU: ") && line.trim() != "</TASK>");
    let mut stack = Vec::new();
    let mut in_nmi = false;
    for line in of_task {
        match line.trim() {
            "<NMI>" => in_nmi = true,
            "</NMI>" => in_nmi = false,
            _ => {}
        }
        match frame::frame(line) {
            Some(Frame::Function(name)) if !in_nmi => stack.push(name.to_owned()),
            Some(_) => {}
            None if stack.is_empty() => stack.extend(frame::instruction_pointer(line).map(str::to_owned)),
            None => {}
        }
    }
    (!stack.is_empty()).then_some(stack)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
NMI backtrace for cpu 0
CPU: 0 UID: 0 PID: 188 Comm: iov-sysrq Not tainted 6.12.117 #1
Call Trace:
 <TASK>
 dump_stack_lvl+0x5b/0x70
 sysrq_handle_showallcpus+0xd/0x20
 </TASK>
Sending NMI from CPU 0 to CPUs 1:
NMI backtrace for cpu 1
CPU: 1 UID: 0 PID: 56 Comm: iov-phy Not tainted 6.12.117 #1
RIP: 0010:igb_rd32+0x1b/0x80
Code: 00 00 0f 1f
Call Trace:
 <NMI>
 nmi_cpu_backtrace+0x5f/0x70
 </NMI>
 <TASK>
 ? exc_nmi+0x1/0x2
 igb_get_hw_semaphore+0x53/0xd0
 igb_release_swfw_sync_82575.isra.0+0x1c/0x60
 </TASK>
";

    #[test]
    fn only_the_stack_of_the_given_task_is_found() {
        let of = |tid| backtrace(LOG.lines(), tid);
        let expected = ["igb_rd32", "igb_get_hw_semaphore", "igb_release_swfw_sync_82575"];
        assert_eq!(of(56).unwrap(), expected);
        assert_eq!(of(188).unwrap(), ["dump_stack_lvl", "sysrq_handle_showallcpus"]);
        assert_eq!(of(5), None);
    }

    #[test]
    fn a_task_in_user_space_has_no_stack() {
        let log = "CPU: 1 PID: 7 Comm: a\nRIP: 0033:0x55d0\nCPU: 0 PID: 8 Comm: b\nRIP: 0010:f+0x1/0x2\n";
        assert_eq!(backtrace(log.lines(), 7), None);
        assert_eq!(backtrace(log.lines(), 8).unwrap(), ["f"]);
    }
}
