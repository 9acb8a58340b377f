"""A kernel to test against: a virtual machine with Debian's kernel, in which the tests of `inside/` run.

The kernel of a build machine may lack netem, the Open vSwitch datapath or cgroups of version 2; what depends on them is
tested here. `kernel_package` fetches a kernel, `initrd` packs what it starts with, `guest` boots it and reads results,
`conftest` shows each test of the guest as a test of its own.
"""
