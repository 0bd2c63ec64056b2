#!/usr/bin/perl
# Writes the session's values where it looks for them, and waits until the sidecar answers.
use strict;
use warnings;
use IO::Socket::INET;

my ($file, $host, $port) = @ARGV;
umask 077;
open my $values, '>', $file or die "$file: $!\n";
print $values do { local $/; <STDIN> };
close $values or die "$file: $!\n";
for (1 .. 20_000) {
    my $sidecar = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 1);
    if ($sidecar) {
        print $sidecar "GET /health HTTP/1.0\r\n\r\n";
        exit 0 if (<$sidecar> // '') =~ m{^HTTP/1\.\d 200 };
    }
    select undef, undef, undef, 0.01;
}
die "the sidecar does not answer\n";
