#!/bin/sh
# Runs the QEMU beside this file with the libraries, firmware and modules of its own release.
root=$(dirname -- "$(readlink -f -- "$0")")/root
libraries=$root/usr/lib/x86_64-linux-gnu
# Without this, QEMU would load the modules of the QEMU that is installed.
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries:$root/usr/lib" "$root/usr/bin/qemu-system-x86_64" \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
