#!/usr/bin/perl
# First process of a session in a bottle: takes the session's values out of a file, then runs the words given.
# Perl, because the values are NUL-separated and may have names that a shell keeps for itself.
use strict;
use warnings;
use POSIX ();

my $file = shift @ARGV;
if (open(my $values, '<:raw', $file)) {
    unlink $file;
    local $/ = "\0";
    while (my $entry = <$values>) {
        chomp $entry;
        my ($name, $value) = split /=/, $entry, 2;
        $ENV{$name} = $value;
    }
    close $values;
}

sub run_words {
    exec { $ARGV[0] } @ARGV or do {
        print STDERR "claude-bottle: error: cannot run $ARGV[0] in the bottle: $!\n";
        POSIX::_exit(127);
    };
}

run_words() unless -t STDIN;

# On a terminal the client gets a process group of its own and a parent in the same session: without one its Ctrl-Z
# would leave it waiting for a SIGCONT that nobody sends.
$SIG{TTOU} = 'IGNORE';
my $child = fork // die "claude-bottle: error: cannot fork in the bottle: $!\n";
if ($child == 0) {
    POSIX::setpgid(0, 0);
    POSIX::tcsetpgrp(0, $$);
    $SIG{TTOU} = 'DEFAULT';
    run_words();
}
POSIX::setpgid($child, $child);
POSIX::tcsetpgrp(0, $child);
$SIG{$_} = 'IGNORE' for qw(INT QUIT TSTP);
for my $name (qw(TERM HUP)) {
    $SIG{$name} = sub { kill $name, -$child };
}
while (1) {
    my $ended = waitpid($child, POSIX::WUNTRACED());
    next if $ended < 0 && $!{EINTR};
    last if $ended < 0;
    if (kill 0, $child) { # stopped, not ended; $? does not tell the two apart
        POSIX::tcsetpgrp(0, $child);
        kill 'CONT', -$child;
        next;
    }
    exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
}
exit 1;
