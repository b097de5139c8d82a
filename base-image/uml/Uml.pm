# What runjob does otherwise in a user-mode machine: its disks and ports are no virtio devices. The kernel starts
# `perl -MUml /init`; the INIT block below is run once the program has been read, and before any of it is run (perlmod(1)).
package Uml;
use strict;

# What uml_engine connects to serial lines; the first is the console.
my %LINES = ('construir.control' => 1, 'construir.output' => 2);
my ($READ_WRITE, $O_NOCTTY) = (2, 0400);                    # asm-generic/fcntl.h
my ($TCSETS, $SERIAL) = (0x5402, 04277);   # asm-generic/ioctls.h, termbits.h
my $MS_RDONLY = 1;                                          # sys/mount.h

INIT {
    *main::mount_root = \&mount_root;
    *main::open_port = \&open_line;
}

# The root is a snapshot that nobody shares: it can be written to at once.
sub mount_root {
    main::mount_fs('/dev/ubda', '/root', 'ext4', 0) or die "the root disk can't be mounted: $!\n";
    my $release = $ENV{worker_release};
    mkdir "/root/lib/modules/$release";
    # Below what the kernel line names as hostfs=, in the jail.
    main::mount_fs('modules', "/root/lib/modules/$release", 'hostfs', $MS_RDONLY, $release);
}

# A serial line as it is: no echo, no lines, no change of any byte (termios(3), a raw terminal).
sub open_line {
    my $number = $LINES{$_[0]} // return undef;
    sysopen my $line, "/dev/ttyS$number", $READ_WRITE | $O_NOCTTY or return undef;
    my $raw = pack 'L4 C x6 C C x12', 0, 0, $SERIAL, 0, 0, 1, 0;
    ioctl $line, $TCSETS, $raw;
    return $line;
}

1;
