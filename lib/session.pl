#!/usr/bin/perl -t
# First process of a session in a bottle: takes the session's values out of a file, then runs the words given.
# Perl, because the values are NUL-separated and may have names that a shell keeps for itself. With -t it heeds no PERL
# variable of the image's; the values are in its environment only when the words are about to run.
use strict;
use warnings;
no warnings 'taint';
use POSIX ();

my ($file, @words) = @ARGV;
my %values = read_values($file);
my $program = find_program($words[0]);

sub fail {
    my ($text) = @_;
    print STDERR "claude-bottle: error: $text\n";
    POSIX::_exit(127);
}

sub read_values {
    my ($path) = @_;
    my %found;
    if (open my $source, '<:raw', $path) {
        unlink $path;
        local $/ = "\0";
        while (my $entry = <$source>) {
            chomp $entry;
            my ($name, $value) = split /=/, $entry, 2;
            $found{$name} = $value;
        }
    } elsif (!$!{ENOENT}) {
        fail("cannot read the session's values in the bottle: $!");
    }
    return %found;
}

# By the image's PATH: the values may have another one, which is the session's alone.
sub find_program {
    my ($name) = @_;
    return $name if $name =~ m{/};
    for my $folder (grep { m{^/} } split /:/, $ENV{PATH} // '') {
        return "$folder/$name" if -f "$folder/$name" && -x _;
    }
    fail("cannot run $name in the bottle: it is not on the image's PATH");
}

# The bottle's own names and addresses: what is asked of them is not the sidecar's business.
sub own_places {
    my $host = (POSIX::uname())[1];
    my @own = ('127.0.0.0/8', '::1', '[::1]', '0.0.0.0', '[::]', $host);
    if (open my $hosts, '<', '/etc/hosts') {
        while (my $line = <$hosts>) {
            my ($address, @names) = split ' ', $line =~ s/#.*//sr;
            push @own, $address, @names if grep { $_ eq 'localhost' || $_ eq $host } @names;
        }
    }
    return @own;
}

sub without_proxy {
    my @places = split /,/, shift // '';
    my %listed = map { $_ => 1 } @places;
    return join ',', @places, grep { !$listed{$_}++ } own_places();
}

# A name that the image has no description of makes every program that draws give up.
sub known_terminal {
    my ($name) = @_;
    return 'xterm-256color' unless $name =~ /^[\w+-][\w.+-]*$/;
    my $folder = substr $name, 0, 1;
    my $own = ($ENV{HOME} // q{}) . '/.terminfo';
    for my $place ($own, qw(/etc/terminfo /lib/terminfo /usr/lib/terminfo /usr/share/terminfo)) {
        return $name if -e "$place/$folder/$name" || -e sprintf '%s/%x/%s', $place, ord $folder, $name;
    }
    return 'xterm-256color';
}

# One bundle for every client: the image's roots, the bottle's own authority, and what the manifest adds for node.
sub trust {
    my ($own) = @_;
    my ($ca, $roots) = ('/etc/claude-bottle/ca.pem', '/etc/ssl/certs/ca-certificates.crt');
    my ($folder) = $file =~ m{^(.*)/};
    join_files("$folder/ca.pem", $ca, $own || ()) or return;
    join_files("$folder/bundle.pem", $roots, $ca, $own || ()) or return;
    $ENV{NODE_EXTRA_CA_CERTS} = "$folder/ca.pem";
    $ENV{NODE_USE_ENV_PROXY} = 1;
    $ENV{$_} = "$folder/bundle.pem" for qw(SSL_CERT_FILE CURL_CA_BUNDLE GIT_SSL_CAINFO REQUESTS_CA_BUNDLE PIP_CERT
        CARGO_HTTP_CAINFO AWS_CA_BUNDLE DENO_CERT);
    delete $values{NODE_EXTRA_CA_CERTS};
}

sub join_files {
    my ($target, @sources) = @_;
    return 0 unless -r $sources[0] || @sources > 1;
    open my $out, '>:raw', $target or fail("cannot write $target in the bottle: $!");
    for my $source (@sources) {
        open my $in, '<:raw', $source or next;
        local $/;
        print $out scalar(<$in>), "\n";
    }
    close $out or fail("cannot write $target in the bottle: $!");
    return 1;
}

sub run_words {
    $ENV{$_} = without_proxy($ENV{$_}) for qw(NO_PROXY no_proxy);
    $ENV{TERM} = known_terminal($ENV{TERM}) if $ENV{TERM};
    $ENV{LANG} = 'C.UTF-8' unless $ENV{LANG};
    trust($values{NODE_EXTRA_CA_CERTS} // $ENV{NODE_EXTRA_CA_CERTS});
    @ENV{keys %values} = values %values;
    exec { $program } @words or fail("cannot run $words[0] in the bottle: $!");
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
