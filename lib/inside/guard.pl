#!/usr/bin/perl -t
# First process of a bottle, and of a broker: ends it with status 75 where nobody has said for a while that somebody is
# still there to remove it.
#   claude-bottle-guard SECONDS [WORDS]   guards; with words it runs these, and ends as they do
#   claude-bottle-guard --renew SECONDS   renews at each byte of its stdin and answers it, until that ends, or is silent
# It counts its own naps, not the clock: an engine that was suspended has not been without a launcher. Renewed is by a
# signal, which nobody but this process's own user can send it.
use strict;
use warnings;
no warnings 'taint';
use POSIX ();

my $LAPSED = 75; # EX_TEMPFAIL
my $renews = $ARGV[0] eq '--renew' && shift @ARGV;
my ($patience, @words) = @ARGV;

sub renew {
    my $bytes;
    while (1) {
        alarm $patience; # who does not talk any more has lost the way to here
        sysread(STDIN, $bytes, 512) || exit;
        kill('USR1', 1) || die "claude-bottle: error: cannot renew: $!\n";
        syswrite(STDOUT, q{.}) || exit;
    }
}

sub run_words {
    my $child = fork // die "claude-bottle: error: cannot fork: $!\n";
    return $child if $child;
    $SIG{$_} = 'DEFAULT' for qw(CHLD USR1 TERM INT HUP);
    exec { $words[0] } @words or die "claude-bottle: error: cannot run $words[0]: $!\n";
}

renew() if $renews;
$0 = 'claude-bottle-guard';
my $left = $patience;
$SIG{USR1} = sub { $left = $patience };
$SIG{$_} = sub { POSIX::_exit(0) } for qw(TERM INT HUP); # with it goes all that there is
# Ignored, the kernel reaps every orphan, however many; with words their end is waited for.
$SIG{CHLD} = @words ? sub { } : 'IGNORE';
my $child = @words ? run_words() : 0;
while ($left-- > 0) {
    select undef, undef, undef, 1;
    while ($child && (my $ended = waitpid -1, POSIX::WNOHANG()) > 0) {
        POSIX::_exit($? & 127 ? 128 + ($? & 127) : $? >> 8) if $ended == $child;
    }
}
POSIX::_exit($LAPSED);
