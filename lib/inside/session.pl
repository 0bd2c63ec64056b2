#!/usr/bin/perl -t
# First process of a session in a bottle: takes the session's values out of a file, then runs the words given.
#   claude-bottle-session FILE WORDS               the session, once: the file goes with the reading
#   claude-bottle-session --beside MARK FILE WORDS a command beside it, which finds its values in a file that stays
#   claude-bottle-session --tell SIGNAL MARK FILE  to the command that has the mark, and to what it has started
# Perl, because the values are NUL-separated and may have names that a shell keeps for itself. With -t it heeds no PERL
# variable of the image's; the values are in its environment only when the words are about to run.
use strict;
use warnings;
no warnings 'taint';
use POSIX ();

# What the client is told of its box. Of the bottle's authority; where images keep their roots (Debian, Alpine, Red Hat, SUSE).
my $NOTE = '/etc/claude-bottle/CLAUDE.md';
my $CA = '/etc/claude-bottle/ca.pem';
my @ROOTS = qw(/etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem /etc/pki/tls/certs/ca-bundle.crt
    /etc/ssl/ca-bundle.pem);
# Name what a client trusts in place of the roots that it brings along.
my @BUNDLES = qw(SSL_CERT_FILE CURL_CA_BUNDLE GIT_SSL_CAINFO REQUESTS_CA_BUNDLE PIP_CERT CARGO_HTTP_CAINFO
    AWS_CA_BUNDLE);
# Over HTTP/2 git's client may hang for ever in a push.
my @git = (['http.version', 'HTTP/1.1']);
my %joined; # files made of one that somebody has named, by that

my ($how) = @ARGV && $ARGV[0] =~ /^--/ ? shift @ARGV : q{};
my $signal = $how eq '--tell' ? shift @ARGV : q{};
my $mark = $how ? shift @ARGV : q{};
my ($file, @words) = @ARGV;
my ($folder) = $file =~ m{^(.*)/};
tell_it($signal) if $signal;
my $place; # that the words run in, if not where they begin
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
        unlink $path unless $mark;
        local $/ = "\0";
        while (my $entry = <$source>) {
            chomp $entry;
            my ($name, $value) = split /=/, $entry, 2;
            if ($name eq q{}) { # no variable, but a setting for git
                push @git, [split /\n/, $value, 2];
            } elsif ($name eq q{.}) {
                $place = $value;
            } else {
                $found{$name} = $value;
            }
        }
    } elsif ($mark || !$!{ENOENT}) {
        fail('the bottle is not ready: its seals are not proved yet') if $!{ENOENT};
        fail("cannot read the session's values in the bottle: $!");
    }
    return %found;
}

# What the session has under a name: the manifest's, else the image's.
sub said {
    my ($name) = @_;
    return $values{$name} // $ENV{$name};
}

sub on_path {
    my ($name, $path) = @_;
    for my $place (grep { m{^/} } split /:/, $path // q{}) {
        return "$place/$name" if -f "$place/$name" && -x _;
    }
    return;
}

# The client by the image's PATH: the values may have another one, which is for what runs in the bottle by the user's will.
sub find_program {
    my ($name) = @_;
    return $name if $name =~ m{/};
    return on_path($name, $mark ? said('PATH') : $ENV{PATH})
        // fail("cannot run $name in the bottle: it is not on the " . ($mark ? 'PATH' : "image's PATH"));
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

# Every client trusts the bottle's authority, and all that it would have trusted without.
sub trust {
    return unless -r $CA;
    my @extra = grep { defined } said('NODE_EXTRA_CA_CERTS');
    my ($roots) = grep { -r && -s _ } @ROOTS;
    my $bundle = $roots && join_files('bundle.pem', $roots, $CA, @extra); # never of the authority alone
    $values{NODE_EXTRA_CA_CERTS} = join_files('ca.pem', $CA, @extra);
    $values{DENO_CERT} = with_ca(said('DENO_CERT'), $values{NODE_EXTRA_CA_CERTS}); # beside its own, as node does
    for my $name (@BUNDLES) {
        my $file = with_ca(said($name), $bundle);
        $values{$name} = $file if defined $file;
    }
    $values{NODE_USE_ENV_PROXY} //= 1;
    java($bundle);
}

# A file that manifest or image name is joined with the authority; a name that leads to none stays as it is.
sub with_ca {
    my ($own, $file) = @_;
    return $file unless defined $own;
    return $own unless $own =~ m{^/} && -f $own && -r _;
    return $joined{$own} //= join_files('own-' . keys(%joined) . '.pem', $own, $CA);
}

sub join_files {
    my ($name, @sources) = @_;
    my %seen; # an image may name its own roots for node: what is twice in a bundle is read by every client
    write_file("$folder/$name", map { "$_\n" } grep { !$seen{$_}++ } map { contents($_) } @sources);
    return "$folder/$name";
}

sub contents {
    my ($source) = @_;
    -f $source && open my $in, '<:raw', $source or return;
    local $/;
    return <$in> // ();
}

sub write_file {
    my ($target, @parts) = @_;
    open my $out, '>:raw', "$target.$$" or fail("cannot write $target in the bottle: $!");
    print $out @parts;
    close $out && rename "$target.$$", $target or fail("cannot write $target in the bottle: $!"); # others may read it
}

# Java reads neither the variables of proxies nor bundles; its own variable makes it say a line at each run.
sub java {
    my ($bundle) = @_;
    on_path('java', said('PATH')) or return;
    my $own = said('JAVA_TOOL_OPTIONS') // q{};
    my ($host, $port) = ($ENV{HTTPS_PROXY} // q{}) =~ m{^http://([^:/]+):(\d+)};
    my @direct = map { $_ eq '127.0.0.0/8' ? '127.*' : $_ } split /,/, $ENV{NO_PROXY};
    my @options = $host ? map { ("$_.proxyHost=$host", "$_.proxyPort=$port") } qw(http https) : ();
    push @options, 'http.nonProxyHosts=' . join '|', @direct;
    push @options, "javax.net.ssl.trustStore=$folder/roots.jks" if $bundle;
    my @wanted = grep { my ($name) = split /=/; $own !~ /-D\Q$name\E=/ } @options;
    write_roots("$folder/roots.jks", contents($bundle)) if grep { /^javax/ } @wanted;
    $values{JAVA_TOOL_OPTIONS} = join q{ }, grep { length } $own, map { "-D$_" } @wanted;
}

# A store of the kind JKS without a password: nobody looks at the digest at its end then.
sub write_roots {
    my ($target, $bundle) = @_;
    my @pem = $bundle =~ /-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----/gs;
    my @roots = grep { is_whole($_) } map { decoded($_) } @pem;
    my $store = pack 'N3', 0xFEEDFEED, 2, scalar @roots;
    for my $number (0 .. $#roots) {
        $store .= pack 'N n/a* N2 n/a* N/a*', 2, "root-$number", 0, 0, 'X.509', $roots[$number];
    }
    write_file($target, $store, "\0" x 20);
}

# Base64 as uuencoding with other letters: the smallest perl has no module for it.
sub decoded {
    my ($text) = @_;
    $text =~ tr{A-Za-z0-9+/}{}cd;
    $text =~ tr{A-Za-z0-9+/}{ -_};
    return join q{}, map { unpack 'u', chr(32 + int(length() * 3 / 4)) . $_ } unpack '(a60)*', $text;
}

# One that is not would cost Java all the others.
sub is_whole {
    my ($der) = @_;
    return $der =~ /^\x30\x82(..)/s && unpack('n', $1) + 4 == length $der;
}

# Behind the settings that manifest or image pass in the same way; git refuses a count that is none by itself.
sub settle_git {
    my $count = said('GIT_CONFIG_COUNT') || 0;
    return unless $count =~ /^\d{1,6}\z/;
    for my $setting (@git) {
        @values{"GIT_CONFIG_KEY_$count", "GIT_CONFIG_VALUE_$count"} = @$setting;
        $count++;
    }
    $values{GIT_CONFIG_COUNT} = $count;
}

# Where the client looks for its user's notes; what an image has there stays, and this comes behind it.
sub take_note {
    my $home = said('HOME') // return;
    my $own = (said('CLAUDE_CONFIG_DIR') // "$home/.claude") . '/CLAUDE.md';
    my $note = contents($NOTE) // return;
    return if -l $own || !-e $own && symlink $NOTE, $own;
    my $before = contents($own) // return;
    return if index($before, $note) >= 0 || !open my $out, '>>:raw', $own;
    print $out $before =~ /\n\z|\A\z/ ? q{} : "\n", "\n$note";
    close $out;
}

sub run_words {
    $ENV{$_} = without_proxy($ENV{$_}) for qw(NO_PROXY no_proxy);
    $ENV{TERM} = known_terminal($ENV{TERM}) if $ENV{TERM};
    $ENV{LANG} = 'C.UTF-8' unless $ENV{LANG};
    trust();
    take_note() unless $mark;
    settle_git();
    @ENV{keys %values} = values %values;
    !defined $place || chdir $place or fail("cannot enter $place in the bottle: $!");
    exec { $program } @words or fail("cannot run $words[0] in the bottle: $!");
}

# A command's process group is in a file as long as it runs, and there a moment after its client.
sub tell_it {
    my ($number) = @_;
    for (1 .. 20) {
        my ($group) = (contents("$folder/$mark") // q{}) =~ /^(\d+)$/;
        POSIX::_exit(kill($number, -$group) ? 0 : 1) if $group;
        select undef, undef, undef, 0.1;
    }
    POSIX::_exit(1);
}

my $typed = -t STDIN;
run_words() unless $typed || $mark;

# On a terminal the client gets a process group of its own and a parent in the same session: without one its Ctrl-Z
# would leave it waiting for a SIGCONT that nobody sends. A command beside the session has them for who signals it.
$SIG{TTOU} = 'IGNORE';
my $child = fork // die "claude-bottle: error: cannot fork in the bottle: $!\n";
if ($child == 0) {
    POSIX::setpgid(0, 0);
    POSIX::tcsetpgrp(0, $$) if $typed;
    $SIG{TTOU} = 'DEFAULT';
    run_words();
}
POSIX::setpgid($child, $child);
POSIX::tcsetpgrp(0, $child) if $typed;
$SIG{$_} = 'IGNORE' for qw(INT QUIT TSTP);
for my $name (qw(TERM HUP)) {
    $SIG{$name} = sub { kill $name, -$child };
}
write_file("$folder/$mark", $child) if $mark;
while (1) {
    my $ended = waitpid($child, $typed ? POSIX::WUNTRACED() : 0);
    next if $ended < 0 && $!{EINTR};
    last if $ended < 0;
    if (kill 0, $child) { # stopped, not ended; $? does not tell the two apart
        POSIX::tcsetpgrp(0, $child);
        kill 'CONT', -$child;
        next;
    }
    unlink "$folder/$mark" if $mark;
    exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
}
exit 1;
