//! The command line of iov-regress.

fn main() {}
